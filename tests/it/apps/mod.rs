//! Applications that others wrote, behind web servers that others wrote.
//!
//! They come from the distribution, and stay where it puts them: what they write goes to the test's directory. The web
//! servers' configurations are those in `examples/`.

mod dokuwiki;
mod mediawiki;
mod servers;
mod symfony;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::support::http::{Browser, Page};
use super::support::server::write;
use super::support::{Server, Setup};

const CONTENT_SHA256: &str = "8d0a0228cd4fb98a6b21651e739b8a7d330d7cc73178fe692f78580be9c81b4a";

/// Something to upload.
fn content() -> Vec<u8> {
    (0..1_500_000_u64)
        .map(|i| ((i * i / 7 + i) % 251) as u8)
        .collect()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command line's PHP, of the build that is tested.
fn php() -> PathBuf {
    let config = std::env::var("PHP_CONFIG").unwrap_or_else(|_| "php-config".to_owned());
    let output = Command::new(&config).arg("--php-binary").output();
    let output = output.unwrap_or_else(|error| panic!("{config}: {error}"));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

/// Distributions load opcache; a PHP that was built from source has to be told.
fn with_opcache(setup: Setup) -> Setup {
    let modules = Command::new(php()).arg("-m").output().unwrap().stdout;
    if String::from_utf8_lossy(&modules).contains("Zend OPcache") {
        setup
    } else {
        setup.args(&["-d", "zend_extension=opcache"])
    }
}

/// Makes a directory for PHP to write to.
fn writable(path: &Path) {
    fs::create_dir_all(path).unwrap();
    open_to_all(path);
}

/// Lets PHP's user read and write what is there.
fn open_to_all(path: &Path) {
    let is_dir = path.is_dir();
    fs::set_permissions(
        path,
        Permissions::from_mode(if is_dir { 0o777 } else { 0o666 }),
    )
    .unwrap();
    if is_dir {
        fs::read_dir(path)
            .unwrap()
            .for_each(|entry| open_to_all(&entry.unwrap().path()));
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            write(&target, fs::read(entry.path()).unwrap());
        }
    }
}

/// Goes where a page sends its visitor, if it does.
fn follow(browser: &mut Browser, page: Page) -> Page {
    let Some(location) = page.header("Location") else {
        return page;
    };
    let path = location.strip_prefix("http://").map_or(location, |rest| {
        rest.find('/').map_or("/", |slash| &rest[slash..])
    });
    browser.get(path.split('#').next().unwrap_or_default())
}

/// The page came in pieces, each so much later than the one before.
#[track_caller]
fn expect_pieces(page: &Page, count: usize, apart: Duration) {
    let times: Vec<Duration> = page.pieces.iter().map(|(time, _)| *time).collect();
    let pauses = times
        .windows(2)
        .filter(|pair| pair[1] - pair[0] >= apart)
        .count();
    assert_eq!(
        pauses + 1,
        count,
        "expected {count} pieces {apart:?} apart, they came at {times:?}"
    );
}

#[track_caller]
fn expect_no_errors(server: &Server) {
    let log = server.log();
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| {
            ["PHP Fatal", "SIG", "ERROR", "ALERT"]
                .iter()
                .any(|word| line.contains(word))
        })
        .collect();
    assert!(errors.is_empty(), "errors in the log: {errors:#?}");
}
