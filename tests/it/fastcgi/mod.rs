//! The protocol, in raw bytes. Section numbers are those of the FastCGI 1.0 specification.
//!
//! Tests whose names begin with `c` and a number are the conformance cases, of which php-fpm fails about half.

mod framing;
mod management;
mod pairs;
mod requests;
mod streams;
mod together;

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use crate::support::record::{PARAMS, STDIN, record};
use crate::support::{Request, Server, Setup, eventually};

/// For what must happen at once.
const SOON: Duration = Duration::from_secs(3);

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Setup::new()
        .pool("php_value[memory_limit] = 512M\nphp_value[post_max_size] = 256M")
        .file("hello.php", "hello")
        .file("body.php", "<?php echo file_get_contents('php://input');")
        .file("param.php", "<?php echo $_SERVER['X_PARAM'] ?? 'none';")
        .start_shared()
});

fn hello() -> Request {
    SERVER.get("/hello.php")
}

/// A request that is answered with the parameter X_PARAM.
fn param() -> Request {
    SERVER.get("/param.php")
}

/// A POST that is answered with its body.
fn echo(body: impl Into<Vec<u8>>) -> Request {
    SERVER.get("/body.php").post("text/plain", body)
}

/// A request that runs until the file is there.
fn wait_for(server: &Server, path: &Path) -> Request {
    let path = path.display();
    server.run(&format!(
        "echo 'waited'; touch('{path}.running');
         while (!file_exists('{path}')) {{ usleep(2000); clearstatcache(); }}"
    ))
}

fn await_running(path: &Path) {
    let running = path.with_extension("running");
    eventually("the script runs", || running.exists().then_some(()));
}

/// PARAMS with this content in one record, as part of a whole GET.
fn with_params(request: &Request, params: &[Vec<u8>]) -> Vec<u8> {
    [
        request.begin(),
        params.concat(),
        record(PARAMS, request.id, b""),
        record(STDIN, request.id, b""),
    ]
    .concat()
}
