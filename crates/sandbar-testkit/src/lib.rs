//! Development only: temporary homes, probes and fakes for tests.

#![forbid(unsafe_code)]
