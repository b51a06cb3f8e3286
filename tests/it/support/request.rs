//! Requests as a web server would send them, and their answers.

use std::fmt;
use std::path::Path;

use super::client::{Address, Client};
use super::record::{self, Record};

/// A request to be sent. Unless told otherwise it does not keep the connection.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: u16,
    pub(crate) role: u16,
    pub(crate) flags: u8,
    pub(crate) params: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    address: Address,
}

impl Request {
    /// GET of a script in this directory, with what web servers say about it.
    pub(crate) fn get(address: &Address, root: &Path, uri: &str) -> Self {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let request = Self {
            id: 1,
            role: record::RESPONDER,
            flags: 0,
            params: Vec::new(),
            body: Vec::new(),
            address: address.clone(),
        };
        request
            .param("GATEWAY_INTERFACE", "CGI/1.1")
            .param("SERVER_SOFTWARE", "tests/1")
            .param("SERVER_PROTOCOL", "HTTP/1.1")
            .param("SERVER_NAME", "www.example.org")
            .param("SERVER_ADDR", "192.0.2.1")
            .param("SERVER_PORT", "80")
            .param("REMOTE_ADDR", "192.0.2.77")
            .param("REMOTE_PORT", "54321")
            .param("REQUEST_METHOD", "GET")
            .param("REQUEST_URI", uri)
            .param("DOCUMENT_URI", path)
            .param("DOCUMENT_ROOT", root.to_str().unwrap())
            .param("SCRIPT_NAME", path)
            .param("SCRIPT_FILENAME", format!("{}{path}", root.display()))
            .param("QUERY_STRING", query)
            .param("CONTENT_TYPE", "")
            .param("CONTENT_LENGTH", "")
            .param("HTTP_HOST", "www.example.org")
    }

    /// Sets a parameter.
    pub(crate) fn param(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).another_param(name, value)
    }

    /// Adds a parameter, even if there is one of its name.
    pub(crate) fn another_param(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = (name.as_ref().to_vec(), value.as_ref().to_vec());
        self.params.push((name, value));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.params.retain(|(other, _)| other != name.as_bytes());
        self
    }

    pub(crate) fn query(self, query: &str) -> Self {
        let path = self.text("SCRIPT_NAME");
        self.param("QUERY_STRING", query)
            .param("REQUEST_URI", format!("{path}?{query}"))
    }

    pub(crate) fn method(self, method: &str) -> Self {
        self.param("REQUEST_METHOD", method)
    }

    /// POST with a body of this type.
    pub(crate) fn post(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.method("POST")
            .param("CONTENT_TYPE", content_type)
            .body(body)
    }

    pub(crate) fn form(self, body: &str) -> Self {
        self.post("application/x-www-form-urlencoded", body)
    }

    /// POST of a form with files.
    pub(crate) fn multipart(self, parts: &[Part<'_>]) -> Self {
        self.post(
            "multipart/form-data; boundary=the-boundary",
            multipart(parts, "the-boundary"),
        )
    }

    /// The body, and CONTENT_LENGTH to match.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.param("CONTENT_LENGTH", length)
    }

    pub(crate) fn id(mut self, id: u16) -> Self {
        self.id = id;
        self
    }

    pub(crate) fn role(mut self, role: u16) -> Self {
        self.role = role;
        self
    }

    pub(crate) fn keep(mut self) -> Self {
        self.flags |= 1;
        self
    }

    /// A parameter's value.
    pub(crate) fn text(&self, name: &str) -> String {
        let value = self
            .params
            .iter()
            .find(|(other, _)| other == name.as_bytes());
        value.map_or(String::new(), |(_, value)| {
            String::from_utf8_lossy(value).into_owned()
        })
    }

    pub(crate) fn begin(&self) -> Vec<u8> {
        record::begin(self.id, self.role, self.flags)
    }

    /// The content of the PARAMS stream.
    pub(crate) fn pairs(&self) -> Vec<u8> {
        self.params
            .iter()
            .flat_map(|(name, value)| record::pair(name, value))
            .collect()
    }

    /// BEGIN and PARAMS, the end of PARAMS included.
    pub(crate) fn head(&self) -> Vec<u8> {
        [
            self.begin(),
            record::stream(record::PARAMS, self.id, &self.pairs()),
            record::record(record::PARAMS, self.id, b""),
        ]
        .concat()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [
            self.head(),
            record::stream(record::STDIN, self.id, &self.body),
            record::record(record::STDIN, self.id, b""),
        ]
        .concat()
    }

    /// Sends it on a connection of its own.
    pub(crate) fn send(&self) -> Response {
        Client::connect(&self.address).request(self)
    }

    /// Connects, without sending anything yet.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Sends it, and does not wait for the answer.
    pub(crate) fn start(&self) -> Client {
        let mut client = Client::connect(&self.address);
        client.send(&self.bytes());
        client
    }
}

/// A field or a file of a form.
pub(crate) struct Part<'a> {
    pub(crate) name: &'a str,
    pub(crate) file: Option<(&'a str, &'a str)>,
    pub(crate) content: &'a [u8],
}

impl<'a> Part<'a> {
    pub(crate) fn field(name: &'a str, value: &'a str) -> Self {
        Self {
            name,
            file: None,
            content: value.as_bytes(),
        }
    }

    pub(crate) fn file(name: &'a str, file: &'a str, kind: &'a str, content: &'a [u8]) -> Self {
        Self {
            name,
            file: Some((file, kind)),
            content,
        }
    }
}

pub(crate) fn multipart(parts: &[Part<'_>], boundary: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        let name = part.name;
        body.extend(
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"").bytes(),
        );
        if let Some((file, kind)) = part.file {
            body.extend(format!("; filename=\"{file}\"\r\nContent-Type: {kind}").bytes());
        }
        body.extend(b"\r\n\r\n");
        body.extend(part.content);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{boundary}--\r\n").bytes());
    body
}

/// The whole answer to one request.
pub(crate) struct Response {
    /// From the header `Status`, 200 without it, 0 if it is no number.
    pub(crate) status: u16,
    /// The whole `Status` header.
    pub(crate) status_line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) app_status: u32,
    pub(crate) protocol_status: u8,
    pub(crate) records: Vec<Record>,
}

impl Response {
    /// The last one is END_REQUEST.
    pub(crate) fn from_records(records: Vec<Record>) -> Self {
        let of = |kind| -> Vec<u8> {
            records
                .iter()
                .filter(|record| record.kind == kind)
                .flat_map(|record| record.content.clone())
                .collect()
        };
        let (stdout, stderr) = (of(record::STDOUT), of(record::STDERR));
        let (head, body) = split_head(&stdout);
        let headers: Vec<(String, String)> = head
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| match line.split_once(':') {
                Some((name, value)) => (name.to_owned(), value.trim_start().to_owned()),
                None => panic!("a line of the headers has no colon: {line:?}"),
            })
            .collect();
        let status_line = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("status"))
            .map_or("200 OK".to_owned(), |(_, value)| value.clone());
        let status = status_line
            .split(' ')
            .next()
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        let end = &records.last().unwrap().content;
        assert_eq!(end.len(), 8, "END_REQUEST has 8 bytes: {end:?}");
        Self {
            status,
            status_line,
            headers,
            body,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            app_status: u32::from_be_bytes(end[..4].try_into().unwrap()),
            protocol_status: end[4],
            records,
        }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("expected JSON ({error}): {self:?}"))
    }

    /// The values of all headers of this name.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of the only header of this name.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers(name)[..] {
            [value] => value,
            ref values => panic!("expected one header {name}, came {values:?} in {self:?}"),
        }
    }

    /// It has this status and exactly this body.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str) {
        assert!(
            self.status == status && self.text() == body,
            "expected {status} and {body:?}, came {self:?}"
        );
    }

    /// It is a 200 with exactly this body.
    #[track_caller]
    pub(crate) fn expect_text(&self, body: &str) {
        self.expect(200, body);
    }
}

fn split_head(stdout: &[u8]) -> (String, Vec<u8>) {
    match stdout.windows(4).position(|four| four == b"\r\n\r\n") {
        Some(at) => (
            String::from_utf8_lossy(&stdout[..at]).into_owned(),
            stdout[at + 4..].to_vec(),
        ),
        None => (String::new(), stdout.to_vec()),
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(2000)];
        f.debug_struct("Response")
            .field("status", &self.status_line)
            .field("headers", &self.headers)
            .field("length", &self.body.len())
            .field("body", &String::from_utf8_lossy(shown))
            .field("stderr", &self.stderr)
            .field("app_status", &self.app_status)
            .field("protocol_status", &self.protocol_status)
            .finish()
    }
}
