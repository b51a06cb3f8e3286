//! PHP as web applications know it: all that a web SAPI promises to scripts.

mod errors;
mod input;
mod lifetime;
mod opcache;
mod output;
mod scripts;
mod sessions;
mod settings;

use std::sync::LazyLock;

use super::support::{Request, Server, Setup};

/// For all tests that need nothing special.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Setup::new()
        .children(4)
        .pool(
            "php_value[memory_limit] = 256M\n\
             php_value[post_max_size] = 64M\n\
             php_value[upload_max_filesize] = 32M\n\
             php_value[max_file_uploads] = 5",
        )
        .start_shared()
});

fn run(code: &str) -> Request {
    SERVER.run(code)
}

/// Whether PHP is at least this version.
fn is_since(version_id: u32) -> bool {
    let version = run("echo PHP_VERSION_ID;").send().text();
    version.parse::<u32>().unwrap() >= version_id
}
