//! What an interpreter is asked to run.

#![forbid(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::io;
use std::ptr::null;

use php_src_bindings as ffi;

use super::engine::Settings;
use super::script::{self, Refusal, Rules, Script};
use crate::fastcgi::Params;

/// A request: its parameters, and the script that they lead to.
#[derive(Debug)]
pub struct Request {
    params: Params,
    script: Result<Script, Refusal>,
    body_length: u64,
    rules: OwnedRules,
}

/// [`Rules`] for as long as the request lives.
#[derive(Debug)]
struct OwnedRules {
    settings: &'static Settings,
    limit_extensions: std::sync::Arc<[String]>,
}

impl OwnedRules {
    fn borrow(&self) -> Rules<'_> {
        Rules {
            fix_pathinfo: self.settings.fix_pathinfo,
            discard_path: self.settings.discard_path,
            limit_extensions: &self.limit_extensions,
            doc_root: self.settings.doc_root.as_deref(),
        }
    }
}

impl Request {
    /// Finds the script, which may ask the file system. `body_length` is how many bytes the body really has.
    pub fn new(
        mut params: Params,
        body_length: u64,
        settings: &'static Settings,
        limit_extensions: std::sync::Arc<[String]>,
    ) -> Self {
        let rules = OwnedRules {
            settings,
            limit_extensions,
        };
        let script = script::resolve(&mut params, &rules.borrow());
        Self {
            params,
            script,
            body_length,
            rules,
        }
    }

    /// Why no script will run, if none will.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.script.as_ref().err()
    }

    /// The parameters as the script sees them.
    pub fn params(&self) -> &Params {
        &self.params
    }

    pub(super) fn not_opened(&self, error: &io::Error) -> Refusal {
        match &self.script {
            Ok(script) => script.not_opened(error, &self.rules.borrow()),
            Err(refusal) => refusal.clone(),
        }
    }

    pub(super) fn variables(&self) -> Vec<ffi::howdah_variable> {
        self.params
            .iter_with_nul()
            .map(|(name, value)| ffi::howdah_variable {
                name: name.as_ptr().cast(),
                name_length: name.len().saturating_sub(1),
                value: value.as_ptr().cast(),
                value_length: value.len().saturating_sub(1),
            })
            .collect()
    }

    /// The request for C, which points into `self` and `variables`.
    pub(super) fn for_c(
        &self,
        variables: &[ffi::howdah_variable],
        context: *mut c_void,
    ) -> ffi::howdah_request {
        let mut request = ffi::howdah_request {
            context,
            variables: variables.as_ptr(),
            variable_count: variables.len(),
            method: null(),
            query_string: null(),
            content_type: null(),
            content_length: 0,
            request_uri: null(),
            script: null(),
            refusal: null(),
            refusal_status: 0,
        };
        match &self.script {
            Ok(script) => {
                request.method = script.method.as_ptr();
                request.query_string = script.query_string.as_ptr();
                request.content_type = script.content_type.as_ptr();
                request.request_uri = script.request_uri.as_deref().map_or(null(), CStr::as_ptr);
                request.script = script.path_translated.as_ptr();
                request.content_length = match script.content_length {
                    script::ContentLength::Known(length) => length,
                    // The whole body is there before anything runs.
                    script::ContentLength::UntilEnd => self.body_length,
                }
                .try_into()
                .unwrap_or(i64::MAX);
            }
            Err(refusal) => {
                request.method = c"GET".as_ptr();
                request.refusal = refusal.body().as_ptr();
                request.refusal_status = i32::from(refusal.status());
            }
        }
        request
    }
}
