//! What PHP calls while it runs a request.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use php_src_bindings as ffi;

use super::request::Request;

/// The other end of a request. PHP may call it from threads that an extension started, hence `Sync`.
///
/// These are leaves: they must not run PHP. A panic in one counts as failure.
pub trait Exchange: Sync {
    /// Takes the next bytes of the answer, headers included. False: nobody reads them any more.
    fn write(&self, data: &[u8]) -> bool;
    /// Sends on what was written so far. False: nobody reads it any more.
    fn flush(&self) -> bool;
    /// Fills the buffer with the next bytes of the body and says with how many; 0 at its end.
    ///
    /// # Errors
    ///
    /// If the rest of the body cannot be had.
    fn read_body(&self, buffer: &mut [u8]) -> Result<usize, BodyLost>;
    /// Ends the answer while the script goes on. False: it had ended before.
    fn finish(&self) -> bool;
    /// A message for the error log, and for the client's STDERR stream where `to_client`. `from_php`: it is one of PHP's,
    /// which php-fpm marks with `PHP message:`.
    fn log(&self, message: &[u8], from_php: bool, to_client: bool);
}

/// The rest of a request's body cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rest of the request's body cannot be read")]
pub struct BodyLost;

/// A running request: what the shim's `context` points at.
pub(super) struct Context<'a> {
    pub(super) exchange: &'a dyn Exchange,
    pub(super) request: &'a Request,
}

pub(super) const CALLBACKS: ffi::howdah_callbacks = ffi::howdah_callbacks {
    write: Some(write),
    flush: Some(flush),
    read_body: Some(read_body),
    finish: Some(finish),
    not_opened: Some(not_opened),
    log: Some(log),
};

/// Calls with the request that `context` stands for; `failure` if it is null, or on a panic, which must not unwind into C.
///
/// # Safety
///
/// `context` is null or what [`super::Interpreter::run`] gave to `howdah_request_run`, which has not returned.
unsafe fn with<T>(context: *mut c_void, failure: T, call: impl FnOnce(&Context<'_>) -> T) -> T {
    // SAFETY: the caller vouches for it; only shared references to the context are ever made.
    match unsafe { context.cast::<Context<'_>>().as_ref() } {
        Some(context) => catch_unwind(AssertUnwindSafe(|| call(context))).unwrap_or(failure),
        None => failure,
    }
}

/// # Safety
///
/// `data` is null or points at `length` bytes that nobody changes meanwhile.
unsafe fn slice<'a>(data: *const c_char, length: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { std::slice::from_raw_parts(data.cast(), length) }
}

unsafe extern "C" fn write(context: *mut c_void, data: *const c_char, length: usize) -> bool {
    // SAFETY: the header's contract of this callback.
    unsafe {
        let data = slice(data, length);
        with(context, false, |context| context.exchange.write(data))
    }
}

unsafe extern "C" fn flush(context: *mut c_void) -> bool {
    // SAFETY: the header's contract of this callback.
    unsafe { with(context, false, |context| context.exchange.flush()) }
}

unsafe extern "C" fn read_body(context: *mut c_void, buffer: *mut c_char, length: usize) -> isize {
    if buffer.is_null() {
        return 0;
    }
    // SAFETY: PHP gives room for `length` bytes. It has not written to all of it, so that has to be done before there may
    // be a reference.
    let buffer = unsafe {
        buffer.write_bytes(0, length);
        std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length)
    };
    // SAFETY: the header's contract of this callback.
    unsafe {
        with(context, -1, |context| {
            match context.exchange.read_body(buffer) {
                Ok(read) => isize::try_from(read.min(length)).unwrap_or(-1),
                Err(BodyLost) => -1,
            }
        })
    }
}

unsafe extern "C" fn finish(context: *mut c_void) -> bool {
    // SAFETY: the header's contract of this callback.
    unsafe { with(context, false, |context| context.exchange.finish()) }
}

unsafe extern "C" fn not_opened(
    context: *mut c_void,
    error: c_int,
    status: *mut c_int,
) -> *const c_char {
    // SAFETY: the header's contract of this callback.
    let answer = unsafe {
        with(context, None, |context| {
            let refusal = context
                .request
                .not_opened(&io::Error::from_raw_os_error(error));
            context
                .exchange
                .log(refusal.to_string().as_bytes(), false, true);
            Some((refusal.status(), refusal.body()))
        })
    };
    let (code, body) = answer.unwrap_or((500, c""));
    // SAFETY: the shim gives a place for the status.
    unsafe { status.write(c_int::from(code)) };
    body.as_ptr()
}

unsafe extern "C" fn log(
    context: *mut c_void,
    message: *const c_char,
    length: usize,
    to_client: bool,
) {
    // SAFETY: the header's contract of this callback.
    unsafe {
        let message = slice(message, length);
        if context.is_null() {
            outside_of_requests(message);
        } else {
            with(context, (), |context| {
                context.exchange.log(message, true, to_client);
            });
        }
    }
}

/// Start-up and shutdown: whoever started the process reads its standard error.
fn outside_of_requests(message: &[u8]) {
    let mut line = message.to_vec();
    line.push(b'\n');
    let _ = io::Write::write_all(&mut io::stderr(), &line);
}
