//! libphp behind the shim in `shim/`: the only place of howdah that knows PHP's C API.
//!
//! The contract of every function and type stands in `shim/howdah.h`; bindgen carries its
//! comments over. Two rules hold for all of it:
//!
//! * **One door.** PHP reports fatal errors by `longjmp`. No function bound here lets one out:
//!   each guards itself, and whatever runs PHP code runs inside [`howdah_request_run`].
//! * **Leaf callbacks.** The functions in [`howdah_callbacks`] neither unwind nor call back
//!   into PHP, so no `longjmp` ever crosses a Rust frame.
//!
//! `howdah::php` is the safe face of this crate.

#![allow(non_camel_case_types, non_upper_case_globals)]

// Generated from `shim/howdah.h`, whose comments are the documentation.
#[allow(
    missing_docs,
    clippy::undocumented_unsafe_blocks,
    unsafe_op_in_unsafe_fn
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

/// `PHP_VERSION_ID` of the PHP that this was built with: 80236 is 8.2.36.
pub const PHP_VERSION_ID: u32 = parse(env!("HOWDAH_PHP_VERSION_ID"));

/// The version that goes with [`PHP_VERSION_ID`], such as `8.2.36` or `8.4.0-dev`.
pub const PHP_VERSION: &str = env!("HOWDAH_PHP_VERSION");

/// Whether this PHP is thread-safe: many interpreters in one process.
pub const ZTS: bool = cfg!(php_zts);

const fn parse(digits: &str) -> u32 {
    let (digits, mut value, mut at) = (digits.as_bytes(), 0, 0);
    while at < digits.len() {
        value = value * 10 + (digits[at] - b'0') as u32;
        at += 1;
    }
    value
}
