//! The only module that knows Node: conversions, and nothing that decides anything.
//!
//! Structured values cross as JSON text, which JavaScript reads and writes faster than it builds objects through
//! Node-API, and which carries file names that are not UTF-8 (see [`values`]). What JavaScript alone can do right —
//! calling a client's methods, thenables, identity of thrown values — is done in `index.js`.
#![allow(unsafe_code, reason = "Node-API is C; the macros of napi-derive wrap it")]
#![allow(missing_docs, reason = "napi-derive generates items that have none")]
#![cfg_attr(test, allow(dead_code, reason = "a test build registers nothing with Node"))]
#![allow(clippy::needless_pass_by_value, reason = "Node-API hands values over")]

mod client;
mod download;
mod error;
mod exports;
mod memory;
mod promise;
mod values;
