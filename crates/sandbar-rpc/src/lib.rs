//! A JSON-RPC peer: requests both ways over one connection, whatever carries it.
//!
//! A [`Connection`] reads messages from a [`Transport`] and hands them to a [`Service`]; a [`Sender`] writes. Three rules
//! hold on every transport:
//!
//! - **The reader never waits for the writer**, and never for a service. What can't be taken is refused with an error.
//! - **Two lanes.** What is small and must arrive (answers, ends, closes) goes on the control lane, which passes queued
//!   data and never waits; what is large waits for room on the data lane, first come, first served, so that a
//!   peer that doesn't read holds only those who send data to it.
//! - **Everything is bounded** ([`Limits`]), and what happens at a bound is said where the bound is.
//!
//! Knows no method: what `process/start` means is a service's concern. Reads neither environment nor home.

#![forbid(unsafe_code)]

pub mod auth;
mod close;
pub mod connect;
mod connection;
mod envelope;
mod limits;
pub mod listen;
mod outbox;
mod packing;
mod pending;
mod random;
mod responder;
mod sender;
mod service;
mod tcp;
pub mod tls;
mod transport;

pub use close::{CloseReason, Closed, Violation};
pub use connection::{Connection, serve};
pub use limits::Limits;
pub use responder::Responder;
pub use sender::{RequestError, Sender};
pub use service::{Call, Service};
pub use transport::{Frame, Link, Side, Transport, blocking_lines, lines, memory};
