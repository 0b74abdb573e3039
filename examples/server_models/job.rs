//! What all models do with the bytes of a connection. It knows no socket: bytes in, bytes out.

use std::io::{self, Read, Write};

/// What a server does.
#[derive(Clone, Copy)]
pub(crate) enum Job {
    /// Sends back what comes.
    Echo,
    /// Answers HTTP/1.1 requests that have no body.
    Http,
}

impl Job {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "echo" => Some(Self::Echo),
            "http" => Some(Self::Http),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Http => "http",
        }
    }
}

/// The longest head of a request: request line and headers.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const END: &[u8] = b"\r\n\r\n";

/// One connection's part of the job.
pub(crate) struct Session {
    job: Job,
    /// The beginning of a head whose end has not come. Never longer than `HEAD_BYTES_MAX`.
    begun: Vec<u8>,
}

impl Session {
    pub(crate) fn new(job: Job) -> Self {
        Self { job, begun: Vec::new() }
    }

    /// Takes what has come and appends the answer to `out`. False when the connection is to be closed after it.
    pub(crate) fn receive(&mut self, data: &[u8], out: &mut Vec<u8>) -> bool {
        match self.job {
            Job::Echo => {
                out.extend_from_slice(data);
                true
            }
            Job::Http if self.begun.is_empty() => self.requests(data, out),
            Job::Http => {
                self.begun.extend_from_slice(data);
                let all = std::mem::take(&mut self.begun);
                self.requests(&all, out)
            }
        }
    }

    /// Answers every whole head in `bytes`, and keeps the beginning of the next one.
    fn requests(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> bool {
        while let Some(end) = bytes.windows(END.len()).position(|window| window == END) {
            if HEAD_BYTES_MAX < end {
                return refuse(TOO_LONG, out);
            }
            let goes_on = match Request::parse(&bytes[..end]) {
                Ok(request) => request.answer(out),
                Err(status) => refuse(status, out),
            };
            if !goes_on {
                return false;
            }
            bytes = &bytes[end + END.len()..];
        }
        if HEAD_BYTES_MAX < bytes.len() {
            return refuse(TOO_LONG, out);
        }
        self.begun.extend_from_slice(bytes);
        true
    }
}

// RFC 9110 §15, RFC 6585 §5.
const BAD: &str = "400 Bad Request";
const NOT_ALLOWED: &str = "405 Method Not Allowed\r\nAllow: GET, HEAD";
const HAS_BODY: &str = "413 Content Too Large";
const TOO_LONG: &str = "431 Request Header Fields Too Large";
const OTHER_VERSION: &str = "505 HTTP Version Not Supported";

struct Request<'a> {
    target: &'a str,
    wants_body: bool,
    keep_alive: bool,
}

impl<'a> Request<'a> {
    /// Reads a head: request line and headers (RFC 9112 §3 and §5).
    fn parse(head: &'a [u8]) -> Result<Self, &'static str> {
        let head = std::str::from_utf8(head).map_err(|_| BAD)?;
        let mut lines = head.split("\r\n");
        let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = words[..] else { return Err(BAD) };
        if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BAD);
        }
        let mut keep_alive = match version {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ if version.starts_with("HTTP/") => return Err(OTHER_VERSION),
            _ => return Err(BAD),
        };
        let mut hosts = 0;
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(BAD)?;
            // A name with a space is how requests are smuggled past proxies (RFC 9112 §5.1).
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(BAD);
            }
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "host" => hosts += 1,
                "connection" if value.eq_ignore_ascii_case("close") => keep_alive = false,
                "content-length" if value != "0" => return Err(HAS_BODY),
                "transfer-encoding" => return Err(HAS_BODY),
                _ => {}
            }
        }
        if version == "HTTP/1.1" && hosts != 1 {
            return Err(BAD);
        }
        match method {
            "GET" | "HEAD" => Ok(Self { target, wants_body: method == "GET", keep_alive }),
            _ => Err(NOT_ALLOWED),
        }
    }

    /// Whether the connection goes on.
    fn answer(&self, out: &mut Vec<u8>) -> bool {
        let before = "you asked for ";
        let length = before.len() + self.target.len() + 1;
        let close = if self.keep_alive { "" } else { "Connection: close\r\n" };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n";
        put(out, format_args!("{head}{close}Content-Length: {length}\r\n\r\n"));
        if self.wants_body {
            put(out, format_args!("{before}{}\n", self.target));
        }
        self.keep_alive
    }
}

/// The last answer of a connection.
fn refuse(status: &str, out: &mut Vec<u8>) -> bool {
    put(out, format_args!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
    false
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("memory takes it");
}

/// The job on a connection whose reads and writes wait: for a process, a thread or a fiber of its own.
pub(crate) fn converse(mut stream: impl Read + Write, job: Job) -> io::Result<()> {
    let mut session = Session::new(job);
    let mut buffer = [0; 4096];
    let mut out = Vec::new();
    loop {
        let count = stream.read(&mut buffer)?;
        let goes_on = count > 0 && session.receive(&buffer[..count], &mut out);
        stream.write_all(&out)?;
        out.clear();
        if !goes_on {
            return Ok(());
        }
    }
}
