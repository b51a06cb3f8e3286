//! What relative paths are relative to.

use std::path::Path;

use super::Options;

/// The settings of PHP that hold paths, which php-fpm's pools may give relative to their prefix.
const INI_PATHS: [&str; 15] = [
    "error_log",
    "extension_dir",
    "mime_magic.magicfile",
    "sendmail_path",
    "session.cookie_path",
    "session_pgsql.sem_file_name",
    "soap.wsdl_cache_dir",
    "uploadprogress.file.filename_template",
    "xdebug.output_dir",
    "xdebug.profiler_output_dir",
    "xdebug.trace_output_dir",
    "xmms.path",
    "axis2.client_home",
    "blenc.key_file",
    "coin_acceptor.device",
];

/// Puts before a relative path the pool's prefix, or else the one of the command line, or else the default.
pub(super) fn full(
    path: &str,
    pool_prefix: Option<&str>,
    options: &Options<'_>,
    default: &Path,
) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let prefix = match (pool_prefix, options.prefix) {
        (Some(prefix), _) => prefix.to_owned(),
        (None, Some(prefix)) => prefix.display().to_string(),
        (None, None) => default.display().to_string(),
    };
    format!("{prefix}/{path}")
}

/// The value of a setting of PHP, made absolute when it is a path.
pub(super) fn full_ini(
    name: &str,
    value: &str,
    pool_prefix: Option<&str>,
    options: &Options<'_>,
) -> String {
    let is_path = INI_PATHS.iter().any(|path| name.eq_ignore_ascii_case(path));
    let is_syslog = name.eq_ignore_ascii_case("error_log") && value.eq_ignore_ascii_case("syslog");
    if is_path && !is_syslog && !value.is_empty() {
        full(value, pool_prefix, options, options.default_prefix)
    } else {
        value.to_owned()
    }
}
