//! An application that reads HTTP/1.1 to the letter and remembers what it read.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request as the application understood it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) content: Vec<u8>,
}

impl Seen {
    /// The values of a field, in their order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let of_name = self.fields.iter().filter(|(key, _)| key == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }
}

/// Listens, answers each request with its own method and target, and closes where a letter is out of place.
pub(crate) struct StrictOrigin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Result<Seen, String>>>>,
}

impl StrictOrigin {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || serve(&connection, &notes));
            }
        });
        Self { address, seen }
    }

    /// What it has read since it was last asked; what it could not read, in its own words.
    pub(crate) fn take(&self) -> Vec<Result<Seen, String>> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// The content of `/large`: more than the sockets' buffers on the way take in.
const LARGE: usize = 64 << 20;

fn serve(mut connection: &TcpStream, seen: &Mutex<Vec<Result<Seen, String>>>) {
    let mut reader = BufReader::new(connection);
    // An end between two requests, or a probe that connects only, is no request.
    while reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
        let request = read(&mut reader);
        seen.lock().unwrap().push(request.clone());
        let Ok(Seen { method, target, .. }) = request else {
            return;
        };
        let lasting = if target.starts_with("/fresh") {
            "max-age=600"
        } else {
            "no-store"
        };
        let text = if method == "HEAD" {
            String::new()
        } else {
            format!("{method} {target}")
        };
        let text = if target == "/large" {
            "x".repeat(LARGE)
        } else {
            text
        };
        let length = if method == "HEAD" {
            method.len() + 1 + target.len()
        } else {
            text.len()
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: {lasting}\r\n\r\n"
        );
        if connection
            .write_all(format!("{head}{text}").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Result<Seen, String> {
    let start = line(reader)?;
    let words: Vec<&str> = start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else {
        return Err(format!("no request line: {start:?}"));
    };
    let mut fields = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line
            .split_once(": ")
            .ok_or_else(|| format!("no field: {line:?}"))?;
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte))
        {
            return Err(format!("no name: {line:?}"));
        }
        if value.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(format!("no value: {line:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut seen = Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        fields,
        content: Vec::new(),
    };
    if seen.values("host").len() != 1 {
        return Err(format!("not one Host: {seen:?}"));
    }
    let (lengths, codings) = (
        seen.values("content-length"),
        seen.values("transfer-encoding"),
    );
    seen.content = match (&lengths[..], &codings[..]) {
        ([], []) => Vec::new(),
        ([length], [])
            if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            exactly(
                reader,
                length.parse().map_err(|_| format!("too long: {length}"))?,
            )?
        }
        ([], ["chunked"]) => chunks(reader)?,
        _ => return Err(format!("two readings: {seen:?}")),
    };
    Ok(seen)
}

fn chunks(reader: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    loop {
        let size = line(reader)?;
        let length =
            usize::from_str_radix(&size, 16).map_err(|_| format!("no chunk size: {size:?}"))?;
        if size.starts_with(['+', '-']) {
            return Err(format!("a signed chunk size: {size:?}"));
        }
        content.extend(exactly(reader, length)?);
        let end = line(reader)?;
        if !end.is_empty() {
            return Err(format!("after a chunk: {end:?}"));
        }
        if length == 0 {
            return Ok(content);
        }
    }
}

fn line(reader: &mut impl BufRead) -> Result<String, String> {
    let mut line = Vec::new();
    reader
        .read_until(b'\n', &mut line)
        .map_err(|error| error.to_string())?;
    let line = line
        .strip_suffix(b"\r\n")
        .ok_or_else(|| format!("no line: {line:?}"))?;
    if line.contains(&b'\r') {
        return Err(format!("a bare CR: {line:?}"));
    }
    String::from_utf8(line.to_vec()).map_err(|_| format!("no text: {line:?}"))
}

fn exactly(reader: &mut impl Read, length: usize) -> Result<Vec<u8>, String> {
    let mut content = vec![0; length];
    reader
        .read_exact(&mut content)
        .map_err(|_| "the content ends early".to_owned())?;
    Ok(content)
}
