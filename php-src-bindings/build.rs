//! Finds PHP, compiles the shim and makes its bindings.
//!
//! `php-config` (the one that `PHP_CONFIG` names, else the one on `PATH`) says where the headers and the
//! library are; the headers say the rest. The root package's `build.rs` gets what it needs as `DEP_PHP_…`.

use std::env;
use std::fmt::Display;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

/// The versions of PHP that the shim is written for: from the first, below the second.
const SUPPORTED: (u32, u32) = (80200, 80600);

const SHIM: [&str; 8] = [
    "engine",
    "environment",
    "ini",
    "interrupt",
    "locale",
    "module",
    "opcache",
    "request",
];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let config = PhpConfig::find();
    let headers = Headers::find(&config, &out);
    headers.check_version();
    let library = Library::find(&config, &headers);
    library.check_version(&headers);

    // Before the shim, as it takes a second and not ten.
    generate_bindings(&out);
    compile_shim(&headers);

    println!(
        "cargo::rustc-link-search=native={}",
        library.directory.display()
    );
    println!("cargo::rustc-link-lib=dylib={}", library.name);

    println!("cargo::rustc-env=HOWDAH_PHP_VERSION={}", headers.version);
    println!(
        "cargo::rustc-env=HOWDAH_PHP_VERSION_ID={}",
        headers.version_id
    );
    println!("cargo::metadata=ZTS={}", u8::from(headers.zts));
    println!("cargo::metadata=LIB_DIR={}", library.directory.display());

    println!("cargo::rustc-check-cfg=cfg(php_zts)");
    if headers.zts {
        println!("cargo::rustc-cfg=php_zts");
    }
}

/// Ends the build with one message. Cargo shows it without a backtrace and without this script's output.
fn fail(message: impl Display) -> ! {
    // A directive is one line.
    let message = message.to_string().replace('\n', " ");
    println!("cargo::error={message}");
    process::exit(0);
}

/// What Cargo always sets.
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(format_args!("{name} is not set: run this by cargo")))
}

fn rerun_if_changed(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// The program that knows where PHP is.
struct PhpConfig {
    program: PathBuf,
    /// `8.2` of `8.2.36`
    minor: String,
}

impl PhpConfig {
    fn find() -> Self {
        println!("cargo::rerun-if-env-changed=PHP_CONFIG");
        let named = env::var_os("PHP_CONFIG")
            .filter(|name| !name.is_empty())
            .map(PathBuf::from);
        let program = match named {
            Some(program) if program.components().count() > 1 => {
                if !program.is_file() {
                    fail(format_args!(
                        "PHP_CONFIG names {}, which is not there",
                        program.display()
                    ));
                }
                program
            }
            // A bare name is looked for like any other command.
            named => {
                println!("cargo::rerun-if-env-changed=PATH");
                let name = named.unwrap_or_else(|| "php-config".into());
                let path = env::var_os("PATH").unwrap_or_default();
                env::split_paths(&path).map(|directory| directory.join(&name)).find(|program| program.is_file()).unwrap_or_else(|| {
                    fail(format_args!(
                        "there is no {} on PATH: install PHP's development files (Debian: php8.2-dev), or let the environment \
                         variable PHP_CONFIG name the php-config of the PHP to build with",
                        name.display()
                    ))
                })
            }
        };
        rerun_if_changed(&program);

        let mut config = Self {
            program,
            minor: String::new(),
        };
        let version = config.ask("--version").unwrap_or_default();
        let mut numbers = version.split('.');
        match (numbers.next(), numbers.next()) {
            (Some(major), Some(minor)) => config.minor = format!("{major}.{minor}"),
            _ => fail(format_args!(
                "{} --version says \"{version}\", which is not PHP's version",
                config.program.display()
            )),
        }
        config
    }

    /// None: this php-config does not know the option.
    fn ask(&self, option: &str) -> Option<String> {
        let output = Command::new(&self.program)
            .arg(option)
            .output()
            .unwrap_or_else(|error| {
                fail(format_args!(
                    "can't run {}: {error}",
                    self.program.display()
                ))
            });
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !answer.is_empty()).then_some(answer)
    }

    fn include_dirs(&self) -> Vec<PathBuf> {
        let includes = self.ask("--includes").unwrap_or_default();
        // Not split at spaces: a directory may have one.
        let directories: Vec<_> = includes
            .split("-I")
            .map(str::trim)
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .collect();
        if directories.is_empty() {
            fail(format_args!(
                "{} --includes names no directory",
                self.program.display()
            ));
        }
        directories
    }
}

/// What PHP's headers say.
struct Headers {
    directories: Vec<PathBuf>,
    version: String,
    version_id: u32,
    zts: bool,
    /// Debian, or a PHP that was built from source: who brings what is missing.
    minor: String,
}

impl Headers {
    fn find(config: &PhpConfig, out: &Path) -> Self {
        let directories = config.include_dirs();
        let mut found = 0;
        for name in ["php_version.h", "php_config.h", "build-defs.h", "php.h"] {
            // The directories are PHP's include directory, its main, TSRM, Zend, ...
            if let Some(file) = directories
                .iter()
                .map(|directory| directory.join(name))
                .find(|file| file.is_file())
            {
                rerun_if_changed(&file);
                found += 1;
            }
        }
        if found < 4 {
            fail(format_args!(
                "PHP's headers are not in {}, where {} says they are: install them (Debian: php{}-dev; a source build: make \
                 install-headers)",
                directories[0].display(),
                config.program.display(),
                config.minor
            ));
        }

        // The compiler reads them, as distributions wrap php_config.h in conditions of their own.
        let probe = out.join("probe.c");
        let text = "#include \"php_version.h\"\n#include \"php_config.h\"\n\
                    howdah_version_id PHP_VERSION_ID\nhowdah_version PHP_VERSION\n\
                    #ifdef ZTS\nhowdah_zts 1\n#endif\n";
        if let Err(error) = fs::write(&probe, text) {
            fail(format_args!("can't write {}: {error}", probe.display()));
        }
        let mut compiler = cc::Build::new();
        // Not as system headers: the preprocessor would begin a new line at each of their macros.
        compiler
            .cargo_output(false)
            .flag("-P")
            .includes(&directories)
            .file(&probe);
        let expanded = compiler.try_expand().unwrap_or_else(|error| {
            fail(format_args!("the C compiler can't read PHP's headers (Debian: gcc and libc6-dev are needed): {error}"))
        });
        let expanded = String::from_utf8_lossy(&expanded);
        let value = |name: &str| {
            expanded
                .lines()
                .filter_map(|line| line.strip_prefix(name))
                .find_map(|rest| rest.strip_prefix(' '))
                .map(str::trim)
        };

        let version_id = value("howdah_version_id").and_then(|id| id.parse().ok());
        let version = value("howdah_version").map(|version| version.trim_matches('"').to_owned());
        let (Some(version_id), Some(version)) = (version_id, version) else {
            fail(format_args!(
                "PHP's headers in {} do not say PHP's version",
                directories[0].display()
            ));
        };
        Self {
            zts: value("howdah_zts").is_some(),
            version,
            version_id,
            directories,
            minor: config.minor.clone(),
        }
    }

    fn check_version(&self) {
        let (from, below) = SUPPORTED;
        if self.version_id < from || self.version_id >= below {
            fail(format_args!(
                "this is PHP {}, and howdah supports 8.2 to 8.5: let the environment variable PHP_CONFIG name the php-config of such \
                 a version (Debian: /usr/bin/php-config8.2, of php8.2-dev)",
                self.version
            ));
        }
    }
}

/// libphp.
struct Library {
    directory: PathBuf,
    /// As the linker wants it: `php8.2` is libphp8.2.so.
    name: String,
}

impl Library {
    fn find(config: &PhpConfig, headers: &Headers) -> Self {
        let mut directories = Vec::new();
        // From 8.4 on php-config knows the directory, and distributions move it.
        directories.extend(config.ask("--lib-dir").map(PathBuf::from));
        let prefix = config
            .ask("--prefix")
            .map(PathBuf::from)
            .unwrap_or_default();
        let multiarch = format!("{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
        for directory in ["lib".into(), "lib64".into(), format!("lib/{multiarch}")] {
            directories.push(prefix.join(directory));
        }

        // Debian's has PHP's version in its name. Its libphp.so may be another version's.
        let names = [format!("php{}", config.minor), "php".into()];
        for name in names {
            for directory in &directories {
                let file = directory.join(format!("lib{name}.so"));
                if file.is_file() {
                    rerun_if_changed(&file);
                    return Self {
                        directory: directory.clone(),
                        name,
                    };
                }
            }
        }
        fail(format_args!(
            "PHP {} has no embed library (libphp{minor}.so or libphp.so) in {}: install it (Debian: libphp{minor}-embed; a source build: \
             ./configure --enable-embed=shared)",
            headers.version,
            directories
                .iter()
                .map(|directory| directory.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
            minor = headers.minor,
        ));
    }

    /// Headers and library can come from different versions of PHP, and C would not notice.
    fn check_version(&self, headers: &Headers) {
        let file = self.directory.join(format!("lib{}.so", self.name));
        let content = fs::read(&file)
            .unwrap_or_else(|error| fail(format_args!("can't read {}: {error}", file.display())));
        // A response header that is a constant in every libphp. Within a minor version the ABI stands still.
        let banner = format!("X-Powered-By: PHP/{}.", headers.minor);
        if !content
            .windows(banner.len())
            .any(|window| window == banner.as_bytes())
        {
            fail(format_args!(
                "{} is not of PHP {}, as the headers are: install its embed library (Debian: libphp{}-embed)",
                file.display(),
                headers.version,
                headers.minor
            ));
        }
    }
}

/// As system headers, so that warnings are about the shim alone.
fn include(compiler: &mut cc::Build, directories: &[PathBuf]) {
    for directory in directories {
        compiler.flag("-isystem").flag(directory);
    }
}

fn compile_shim(headers: &Headers) {
    let mut compiler = cc::Build::new();
    compiler
        .std("gnu11")
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true);
    include(&mut compiler, &headers.directories);
    if headers.zts {
        compiler.define("ZEND_ENABLE_STATIC_TSRMLS_CACHE", "1");
    }
    for name in SHIM {
        compiler.file(format!("shim/{name}.c"));
    }
    for name in ["howdah.h", "internal.h", "reasons.h"] {
        rerun_if_changed(&Path::new("shim").join(name));
    }
    for name in SHIM {
        rerun_if_changed(&Path::new("shim").join(name).with_extension("c"));
    }
    rerun_if_changed(Path::new("build.rs"));
    if let Err(error) = compiler.try_compile("howdah_shim") {
        fail(format_args!("the shim does not compile: {error}"));
    }
}

fn generate_bindings(out: &Path) {
    // libclang is loaded at run time, and bindgen panics where it can't be: the hook would print that.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let loaded = panic::catch_unwind(bindgen::clang_version);
    panic::set_hook(hook);
    if loaded.is_err() {
        fail(
            "there is no libclang, which bindgen reads C headers with: install it (Debian: libclang-dev), or let the environment \
             variable LIBCLANG_PATH name its directory",
        );
    }

    let bindings = bindgen::Builder::default()
        .header("shim/howdah.h")
        // Comments are not marked as documentation, but are.
        .clang_arg("-fparse-all-comments")
        .allowlist_item("howdah_.*")
        .allowlist_item("HOWDAH_.*")
        .default_enum_style(bindgen::EnumVariation::NewType {
            is_bitfield: false,
            is_global: true,
        })
        .prepend_enum_name(false)
        .derive_default(false)
        .generate_cstr(true)
        .layout_tests(false)
        .generate()
        .unwrap_or_else(|error| {
            fail(format_args!(
                "bindgen can't read shim/howdah.h (Debian: libclang-dev is needed): {error}"
            ))
        });
    let file = out.join("bindings.rs");
    if let Err(error) = bindings.write_to_file(&file) {
        fail(format_args!("can't write {}: {error}", file.display()));
    }
}
