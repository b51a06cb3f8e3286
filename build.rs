//! Sets the cfgs that go with the PHP which `php-src-bindings` found, and tells the linker what the programs
//! of this package need.

use std::env;
use std::path::Path;

/// Functions of libc that the shim replaces on thread-safe PHP: `shim/locale.c`, `shim/environment.c` and
/// `shim/interrupt.c` of php-src-bindings say why. libphp calls those of the executable only if they
/// are among its dynamic symbols.
const REPLACED: [&str; 6] = [
    "setlocale",
    "getenv",
    "popen",
    "posix_spawn",
    "posix_spawnp",
    "setitimer",
];

/// Where the dynamic linker looks by itself.
const LOADER_PATH: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let found = |name: &str| env::var(format!("DEP_PHP_{name}")).unwrap_or_default();

    println!("cargo::rustc-check-cfg=cfg(php_zts)");
    if found("ZTS") == "1" {
        println!("cargo::rustc-cfg=php_zts");
        for name in REPLACED {
            println!("cargo::rustc-link-arg=-Wl,--export-dynamic-symbol={name}");
        }
    }

    let directory = found("LIB_DIR");
    let multiarch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default() + "-linux-gnu";
    let loader_finds = LOADER_PATH.iter().any(|path| {
        Path::new(&directory) == Path::new(path)
            || Path::new(&directory) == Path::new(path).join(&multiarch)
    });
    if !loader_finds {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
