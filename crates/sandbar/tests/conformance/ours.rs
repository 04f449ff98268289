//! What is ours on top of the dialect, and what our own clients may count on.
