//! From FastCGI parameters to the script to run.
//!
//! The rules are those of php-fpm's `init_request_info` (sapi/fpm/fpm/fpm_main.c): which file is meant, which part of the
//! URI is `PATH_INFO`, and what `$_SERVER` says about it. Web servers disagree about all of this, and php-fpm's answers
//! are what applications are written for. Parameters that are rewritten keep their first value under `ORIG_…`.
//!
//! # What it costs
//!
//! `cgi.fix_pathinfo` asks whether `SCRIPT_FILENAME` exists, and if not, which of the files above it does. php-fpm asks
//! its realpath cache. Here the question is not asked where the answer does not matter: a path such as
//! `/srv/www/index.php` ends as `security.limit_extensions` demands and nothing above it does, so either this file is run
//! or none. The usual request needs no system call, and PHP, which opens the file anyway, finds out whether it is there.
//! If it is not, [`Script::not_opened`] asks the file system and says what php-fpm would have answered. All other
//! paths cost one stat(2), and one more for each segment that has to be taken off.

#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;

use crate::fastcgi::Params;

/// The longest path that Linux takes, its final NUL included; a longer one need not be looked for.
const PATH_MAX: usize = 4096;

/// The settings that decide which file is run.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// `cgi.fix_pathinfo`
    pub fix_pathinfo: bool,
    /// `cgi.discard_path`
    pub discard_path: bool,
    /// `security.limit_extensions`; none allows every file.
    pub limit_extensions: &'a [String],
    /// `doc_root`. If it is absolute, PHP opens this plus `request_uri`, whatever `path_translated` says.
    pub doc_root: Option<&'a [u8]>,
}

/// What `SG(request_info)` gets. Parameters that a client left out are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// `path_translated`: the file to run, unless `doc_root` or `user_dir` say otherwise. It need not exist.
    pub path_translated: CString,
    /// `request_uri`: what `PHP_SELF` begins with, most often `SCRIPT_NAME`. It is null when neither that nor `PATH_INFO` was sent,
    /// which differs from empty when there is a `doc_root`.
    pub request_uri: Option<CString>,
    /// `request_method`
    pub method: CString,
    /// `query_string`
    pub query_string: CString,
    /// `content_type`
    pub content_type: CString,
    /// `content_length`
    pub content_length: ContentLength,
    /// The file was seen, or could not be but the one that was asked for.
    seen: bool,
}

/// How long the request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentLength {
    /// As many bytes, which fit the `zend_long` of PHP.
    Known(u64),
    /// Nobody knows: `CONTENT_LENGTH` is absent, empty or -1 (chunked uploads through Caddy). STDIN ends it.
    UntilEnd,
}

/// Why no script is run. Displays what php-fpm logs, which the client gets on STDERR too.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such script.
    NotFound,
    /// `security.limit_extensions` does not allow the file.
    Forbidden {
        /// The file.
        script: CString,
    },
    /// PHP could not open the file, though it is there.
    NotOpened {
        /// The file.
        script: CString,
        /// It may not be read.
        denied: bool,
        /// The system's reason.
        reason: String,
    },
    /// PHP could not open the file, as the system had no descriptor left for it.
    OutOfDescriptors {
        /// The file.
        script: CString,
    },
    /// The parameters make no sense; php-fpm would have guessed.
    BadRequest(&'static str),
}

impl Refusal {
    /// The response code.
    pub fn status(&self) -> u16 {
        match self {
            Self::NotFound | Self::NotOpened { denied: false, .. } => 404,
            Self::Forbidden { .. } | Self::NotOpened { denied: true, .. } => 403,
            // php-fpm says 404, which others may remember.
            Self::OutOfDescriptors { .. } => 503,
            Self::BadRequest(_) => 400,
        }
    }

    /// The response body, which is php-fpm's.
    pub fn body(&self) -> &'static CStr {
        match self {
            Self::NotFound => c"File not found.\n",
            Self::Forbidden { .. } | Self::NotOpened { denied: true, .. } => c"Access denied.\n",
            Self::NotOpened { denied: false, .. } => c"No input file specified.\n",
            Self::OutOfDescriptors { .. } => c"Service unavailable.\n",
            Self::BadRequest(_) => c"Bad request.\n",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("Primary script unknown"),
            Self::Forbidden { script } => {
                let script = script.to_string_lossy();
                write!(
                    f,
                    "Access to the script '{script}' has been denied (see security.limit_extensions)"
                )
            }
            Self::NotOpened { script, reason, .. } => {
                write!(
                    f,
                    "Unable to open primary script: {} ({reason})",
                    script.to_string_lossy()
                )
            }
            Self::OutOfDescriptors { script } => {
                write!(
                    f,
                    "Unable to open primary script: {} (too many open files; raise LimitNOFILE of the service, or ulimit -n)",
                    script.to_string_lossy()
                )
            }
            Self::BadRequest(reason) => f.write_str(reason),
        }
    }
}

impl Script {
    /// What to answer when PHP could not open the script.
    pub fn not_opened(&self, error: &io::Error, rules: &Rules<'_>) -> Refusal {
        let number = error.raw_os_error().map(Errno::from_raw);
        if matches!(number, Some(Errno::EMFILE | Errno::ENFILE)) {
            return Refusal::OutOfDescriptors {
                script: self.path_translated.clone(),
            };
        }
        let path = self.path_translated.as_bytes();
        if !self.seen && !exists(path) {
            // The search that `resolve` left out: php-fpm names the file that it would have found.
            return match base_script(path).filter(|base| !allowed(base, rules)) {
                Some(base) => forbidden(base),
                None => Refusal::NotFound,
            };
        }
        let denied = error.kind() == io::ErrorKind::PermissionDenied;
        Refusal::NotOpened {
            script: self.path_translated.clone(),
            denied,
            reason: match number {
                // PHP has opened it, and taken it for no script: a directory.
                Some(Errno::UnknownErrno) => "not a regular file".to_owned(),
                Some(number) => number.desc().to_owned(),
                None => error.to_string(),
            },
        }
    }
}

/// Finds the script that a request is for, and rewrites the parameters to match.
///
/// # Errors
///
/// If no script is to be run. The parameters may have been rewritten in part.
pub fn resolve(params: &mut Params, rules: &Rules<'_>) -> Result<Script, Refusal> {
    // The header "Proxy:" would pass for the variable that tells HTTP clients their proxy (httpoxy).
    params.remove(b"HTTP_PROXY");
    let method =
        text(params, b"REQUEST_METHOD")?.ok_or(Refusal::BadRequest("REQUEST_METHOD is missing"))?;
    let query_string = text(params, b"QUERY_STRING")?.unwrap_or_default();
    let content_type = text(params, b"CONTENT_TYPE")?.unwrap_or_default();
    let content_length = content_length(params.get(b"CONTENT_LENGTH"))?;
    for name in [
        &b"SCRIPT_FILENAME"[..],
        b"PATH_TRANSLATED",
        b"PATH_INFO",
        b"SCRIPT_NAME",
        b"REDIRECT_URL",
        b"DOCUMENT_ROOT",
    ] {
        if params.get(name).is_some_and(|value| value.contains(&0)) {
            return Err(NUL_BYTE);
        }
    }

    let from_apache = strip_apache_proxy(params);
    strip_iis_script_name(params);
    let found = if rules.fix_pathinfo {
        fix_pathinfo(params, rules, from_apache)?
    } else {
        take_as_is(params, rules)?
    };

    if has_parent_segment(&found.path) {
        return Err(Refusal::NotFound);
    }
    if !allowed(&found.path, rules) {
        return Err(forbidden(&found.path));
    }
    if found.path.is_empty() {
        // PHP would look for "" and give up on the whole process.
        return Err(Refusal::NotFound);
    }
    if let (Some(root @ [b'/', ..]), Some(uri)) = (rules.doc_root, &found.request_uri) {
        // php-fpm checks the path above and lets PHP open this one.
        let opened = [root, b"/", uri].concat();
        if has_parent_segment(&opened) {
            return Err(Refusal::NotFound);
        }
        if !allowed(&opened, rules) {
            return Err(forbidden(&opened));
        }
    }
    Ok(Script {
        path_translated: c_string(found.path)?,
        request_uri: found.request_uri.map(c_string).transpose()?,
        method,
        query_string,
        content_type,
        content_length,
        seen: found.seen,
    })
}

const NUL_BYTE: Refusal = Refusal::BadRequest("a parameter holds a NUL byte");

/// `path_translated` and `request_uri`, as they are worked out.
struct Found {
    path: Vec<u8>,
    request_uri: Option<Vec<u8>>,
    seen: bool,
}

/// With `cgi.fix_pathinfo=0` the web server is believed.
fn take_as_is(params: &Params, rules: &Rules<'_>) -> Result<Found, Refusal> {
    let translated = params.get(b"PATH_TRANSLATED");
    let script = params
        .get(b"SCRIPT_FILENAME")
        .or(translated)
        .ok_or(Refusal::NotFound)?;
    let path = translated.filter(|_| !rules.discard_path).unwrap_or(script);
    let request_uri = params
        .get(b"PATH_INFO")
        .or_else(|| params.get(b"SCRIPT_NAME"));
    Ok(Found {
        path: path.to_vec(),
        request_uri: request_uri.map(<[u8]>::to_vec),
        seen: true,
    })
}

/// With `cgi.fix_pathinfo=1` the file system decides where the script's name ends.
fn fix_pathinfo(
    params: &mut Params,
    rules: &Rules<'_>,
    from_apache: bool,
) -> Result<Found, Refusal> {
    let redirected = !from_apache && params.get(b"REDIRECT_URL").is_some();
    let translated = params.get(b"PATH_TRANSLATED");
    let script = params
        .get(b"SCRIPT_FILENAME")
        .or(translated)
        .ok_or(Refusal::NotFound)?;
    // Apache's mod_fastcgi with an Action: SCRIPT_FILENAME and SCRIPT_NAME are those of the PHP binary.
    let corrected = translated.filter(|&translated| redirected && translated != script);
    let path = corrected.unwrap_or(script).to_vec();
    let script_name = if corrected.is_some() {
        owned(params, b"REDIRECT_URL")
    } else {
        owned(params, b"SCRIPT_NAME")
    };
    let corrected = corrected.is_some();
    if let (None, Some(doc_root)) = (params.get(b"DOCUMENT_ROOT"), rules.doc_root) {
        params.set(b"DOCUMENT_ROOT", doc_root);
    }

    let certain = is_certain(&path, rules);
    if certain || path.is_empty() || (!path.ends_with(b"/") && exists(&path)) {
        if params.get(b"SCRIPT_FILENAME") != Some(&path) {
            replace(params, b"SCRIPT_FILENAME", Some(&path));
        }
        if redirected {
            for name in [&b"PATH_INFO"[..], b"PATH_TRANSLATED"] {
                if params.get(name).is_some() {
                    replace(params, name, None);
                }
            }
        }
        if corrected {
            replace(params, b"SCRIPT_NAME", script_name.as_deref());
        }
        return Ok(Found {
            path,
            request_uri: script_name,
            seen: !certain,
        });
    }

    let base = base_script(&path).ok_or(Refusal::NotFound)?;
    let tail = path.get(base.len()..).unwrap_or_default();
    let names = split(params, from_apache, script_name, tail);
    if params.get(b"SCRIPT_FILENAME") != Some(base) {
        replace(params, b"SCRIPT_FILENAME", Some(base));
    }
    if let Some(translated) = translate(params, base, names.script_name.as_deref()) {
        replace(params, b"PATH_TRANSLATED", Some(&translated));
    }
    // php-fpm goes on with the whole path where SCRIPT_FILENAME was the base already (REDIRECT_URL, then), and denies it.
    Ok(Found {
        path: base.to_vec(),
        request_uri: names.request_uri,
        seen: true,
    })
}

struct Names {
    script_name: Option<Vec<u8>>,
    request_uri: Option<Vec<u8>>,
}

/// Moves to `PATH_INFO` the `tail` that was taken off the script's file name, and off `SCRIPT_NAME` what belongs to it.
fn split(
    params: &mut Params,
    from_apache: bool,
    script_name: Option<Vec<u8>>,
    tail: &[u8],
) -> Names {
    let sent_info = owned(params, b"PATH_INFO");
    let path_info = match &sent_info {
        _ if from_apache => Some(tail).filter(|&tail| sent_info.as_deref() != Some(tail)),
        // The URI's whole path was sent. Its end is as long as the tail, though it may not look the same.
        Some(sent) if sent.len() > tail.len() => sent.get(sent.len() - tail.len()..),
        _ => None,
    };
    let mut names = Names {
        request_uri: None,
        script_name,
    };
    if let Some(path_info) = path_info {
        if let Some(sent) = &sent_info {
            let uri = if from_apache {
                Some(sent.as_slice())
            } else {
                sent.strip_suffix(path_info)
            };
            params.set(b"ORIG_PATH_INFO", sent);
            if params.get(b"SCRIPT_NAME") != uri {
                replace(params, b"SCRIPT_NAME", uri);
            }
            names.request_uri = uri.map(<[u8]>::to_vec);
        } else if let Some(name) = names
            .script_name
            .as_deref()
            .and_then(|name| without_suffix(name, tail))
        {
            // Apache's ProxyPass cannot set PATH_INFO; the tail is still in SCRIPT_NAME.
            let name = name.to_vec();
            replace(params, b"SCRIPT_NAME", Some(&name));
            names = Names {
                request_uri: Some(name.clone()),
                script_name: Some(name),
            };
        }
        params.set(b"PATH_INFO", path_info);
    }
    if names.request_uri.is_none() {
        if params.get(b"SCRIPT_NAME") != names.script_name.as_deref() {
            replace(params, b"SCRIPT_NAME", names.script_name.as_deref());
        }
        names.request_uri.clone_from(&names.script_name);
    }
    names
}

/// `PATH_TRANSLATED` for the `PATH_INFO` that has been found: the document root and it.
fn translate(params: &Params, base: &[u8], script_name: Option<&[u8]>) -> Option<Vec<u8>> {
    let path_info = params.get(b"PATH_INFO").unwrap_or_default();
    let root = match params.get(b"DOCUMENT_ROOT") {
        Some(root) => root.strip_suffix(b"/").unwrap_or(root),
        None => {
            let name = script_name.filter(|name| memchr::memmem::find(base, name).is_some())?;
            base.get(..base.len() - name.len()).unwrap_or_default()
        }
    };
    Some([root, path_info].concat())
}

/// A name without the tail at its end, which the tail may spell out in percent-encoding. Something must be left.
fn without_suffix<'a>(name: &'a [u8], tail: &[u8]) -> Option<&'a [u8]> {
    let decoded = percent_decode(tail);
    name.strip_suffix(tail)
        .filter(|rest| !rest.is_empty())
        .or_else(|| {
            name.strip_suffix(decoded.as_slice())
                .filter(|rest| !rest.is_empty())
        })
}

/// PHP's `rawurldecode`: `+` stays.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let decoded = match (byte, tail) {
            (b'%', [high, low, ..]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        match decoded {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => out.push(*byte),
        }
    }
    out
}

/// `proxy:fcgi://host/path?query` and `proxy:balancer://…`, as Apache names a file that it proxies, become `/path`. Says
/// whether there was such a prefix.
fn strip_apache_proxy(params: &mut Params) -> bool {
    let mut stripped = false;
    for prefix in [&b"proxy:fcgi://"[..], b"proxy:balancer://"] {
        let Some(script) = params.get(b"SCRIPT_FILENAME") else {
            return false;
        };
        if !script
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        {
            continue;
        }
        let after_host = script.get(prefix.len()..).unwrap_or_default();
        let path = match memchr::memchr(b'/', after_host) {
            Some(slash) => {
                stripped = true;
                after_host.get(slash..).unwrap_or_default()
            }
            None => script,
        };
        let path = path
            .split(|&byte| byte == b'?')
            .next()
            .unwrap_or_default()
            .to_vec();
        params.set(b"SCRIPT_FILENAME", &path);
    }
    stripped
}

/// IIS sends the whole URI path as `PATH_INFO`.
fn strip_iis_script_name(params: &mut Params) {
    if !params
        .get(b"SERVER_SOFTWARE")
        .is_some_and(|name| name.starts_with(b"Microsoft-IIS"))
    {
        return;
    }
    let (Some(path_info), Some(name)) = (params.get(b"PATH_INFO"), params.get(b"SCRIPT_NAME"))
    else {
        return;
    };
    if let Some(rest) = path_info.strip_prefix(name) {
        let rest = rest.to_vec();
        replace(
            params,
            b"PATH_INFO",
            Some(rest.as_slice()).filter(|rest| !rest.is_empty()),
        );
    }
}

/// Whether it can only be this file that is run: its name is allowed, and no directory's name above it is.
fn is_certain(path: &[u8], rules: &Rules<'_>) -> bool {
    path.starts_with(b"/")
        && !path.ends_with(b"/")
        && !rules.limit_extensions.is_empty()
        && !has_parent_segment(path)
        && allowed(path, rules)
        && memchr::memchr_iter(b'/', path)
            .all(|slash| !allowed(path.get(..slash).unwrap_or_default(), rules))
}

/// `security.limit_extensions`: bytes are compared, and there is more to a name than its ending.
fn allowed(path: &[u8], rules: &Rules<'_>) -> bool {
    let is = |ending: &String| path.len() > ending.len() && path.ends_with(ending.as_bytes());
    rules.limit_extensions.is_empty() || rules.limit_extensions.iter().any(is)
}

/// The regular file that is left when segments are taken off a path's end.
fn base_script(path: &[u8]) -> Option<&[u8]> {
    let mut base = path;
    loop {
        let end = memchr::memrchr(b'/', base).or_else(|| memchr::memrchr(b'\\', base))?;
        base = base.get(..end)?;
        // "a//b": what ends in a slash is no file.
        if !base.ends_with(b"/")
            && base.len() < PATH_MAX
            && fs::metadata(as_path(base)).is_ok_and(|file| file.is_file())
        {
            return Some(base);
        }
    }
}

fn exists(path: &[u8]) -> bool {
    path.len() < PATH_MAX && fs::metadata(as_path(path)).is_ok()
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// Some servers let `..` through; no script is named that way.
fn has_parent_segment(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/')
        .any(|segment| segment == b"..")
}

fn forbidden(script: &[u8]) -> Refusal {
    CString::new(script).map_or(NUL_BYTE, |script| Refusal::Forbidden { script })
}

fn content_length(value: Option<&[u8]>) -> Result<ContentLength, Refusal> {
    let digits = match value {
        None | Some(b"" | b"-1") => return Ok(ContentLength::UntilEnd),
        Some(digits) => digits,
    };
    // A sign would be taken by `parse`.
    std::str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|&length| i64::try_from(length).is_ok())
        .map(ContentLength::Known)
        .ok_or(Refusal::BadRequest("CONTENT_LENGTH is not a length"))
}

fn text(params: &Params, name: &[u8]) -> Result<Option<CString>, Refusal> {
    params.get(name).map(c_string).transpose()
}

fn c_string(bytes: impl Into<Vec<u8>>) -> Result<CString, Refusal> {
    CString::new(bytes).map_err(|_| NUL_BYTE)
}

fn owned(params: &Params, name: &[u8]) -> Option<Vec<u8>> {
    params.get(name).map(<[u8]>::to_vec)
}

/// Gives a parameter another value, or none, and keeps the one it had.
fn replace(params: &mut Params, name: &[u8], value: Option<&[u8]>) {
    if let Some(old) = owned(params, name) {
        params.set(&[b"ORIG_", name].concat(), &old);
    }
    if let Some(value) = value {
        params.set(name, value);
    } else {
        params.remove(name);
    }
}

#[cfg(test)]
mod tests;
