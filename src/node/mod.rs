//! The only module that uses Node-API. It only converts values and decides nothing.
//!
//! Structured values are passed as JSON text: JavaScript reads and writes that faster than it builds objects
//! through Node-API, and JSON can carry file names that are not UTF-8 (see [`values`]). What only JavaScript
//! can do correctly is done in `index.js`: calling a client's methods, awaiting thenables, and keeping the
//! identity of thrown values.
#![allow(unsafe_code, reason = "Node-API is C; the macros of napi-derive wrap it")]
#![allow(missing_docs, reason = "napi-derive generates items that have none")]
#![cfg_attr(test, allow(dead_code, reason = "a test build registers nothing with Node"))]
#![allow(clippy::needless_pass_by_value, reason = "Node-API hands values over")]

mod client;
mod download;
mod error;
mod exports;
mod memory;
mod programs;
mod promise;
mod values;
