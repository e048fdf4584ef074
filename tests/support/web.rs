//! A web server in threads of the test, with ranges and whatever trouble a test asks for.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes of which no piece is like another.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

/// What the server does instead of answering as it should.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Closes the connection after so many bytes of the body.
    Cut(usize),
    /// Only a status.
    Status(u16),
    /// No byte, and no end.
    Silence,
    /// Says that an object has so many bytes.
    Total(usize),
    /// Sends more than was asked for.
    More(usize),
    /// Answers with the whole object, whatever range was asked for.
    NoRanges,
    /// As that, and does not say how long it is.
    NoLength,
    /// Flips a bit of the body.
    Flipped,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET /path?query`
    pub line: String,
    /// All header lines, in lower case.
    pub head: String,
}

type Choice = Box<dyn FnMut(&Request) -> Trouble + Send>;

/// Bytes, ETag and further header lines by path.
pub type Objects = HashMap<String, (Vec<u8>, String, String)>;
type Change = Box<dyn FnMut(&Request, &mut Objects) + Send>;

/// What is served.
pub struct Site {
    /// All there is.
    pub objects: Objects,
    /// Which trouble a request has.
    pub trouble: Choice,
    /// What changes once it is known what a request gets.
    pub after: Change,
    /// All that came.
    pub requests: Vec<Request>,
}

/// A server on a port of its own, until the test's process ends.
#[derive(Clone)]
pub struct Web {
    /// `127.0.0.1:port`
    pub host: String,
    /// What is served.
    pub site: Arc<Mutex<Site>>,
}

impl Web {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let trouble: Choice = Box::new(|_| Trouble::None);
        let site = Arc::new(Mutex::new(Site {
            objects: HashMap::new(),
            trouble,
            after: Box::new(|_, _| {}),
            requests: Vec::new(),
        }));
        let shared = site.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let site = shared.clone();
                // A client that goes away is no failure of the test.
                std::thread::spawn(move || drop(serve(stream, &site)));
            }
        });
        Self { host, site }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    pub fn put(&self, path: &str, bytes: &[u8], tag: &str) {
        self.put_with(path, bytes, tag, "");
    }

    pub fn put_with(&self, path: &str, bytes: &[u8], tag: &str, headers: &str) {
        self.site.lock().unwrap().objects.insert(path.into(), (bytes.to_vec(), tag.into(), headers.into()));
    }

    pub fn trouble(&self, choice: impl FnMut(&Request) -> Trouble + Send + 'static) {
        self.site.lock().unwrap().trouble = Box::new(choice);
    }

    pub fn after(&self, change: impl FnMut(&Request, &mut Objects) + Send + 'static) {
        self.site.lock().unwrap().after = Box::new(change);
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.site.lock().unwrap().requests)
    }
}

fn serve(stream: TcpStream, site: &Mutex<Site>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut head = String::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        head += &header.to_ascii_lowercase();
    }
    let request = Request { line: line.trim().to_owned(), head };
    let (trouble, object) = {
        let mut site = site.lock().unwrap();
        site.requests.push(request.clone());
        let trouble = (site.trouble)(&request);
        let target = request.line.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let object = site.objects.get(target).or_else(|| site.objects.get(path)).cloned();
        let Site { after, objects, .. } = &mut *site;
        after(&request, objects);
        (trouble, object)
    };
    answer(stream, &request, trouble, object)
}

fn answer(
    mut stream: TcpStream,
    request: &Request,
    trouble: Trouble,
    object: Option<(Vec<u8>, String, String)>,
) -> std::io::Result<()> {
    let close = "connection: close\r\n";
    match (&trouble, &object) {
        (Trouble::Silence, _) => {
            std::thread::sleep(Duration::from_secs(60));
            return Ok(());
        }
        (Trouble::Status(status), _) => {
            return write!(stream, "HTTP/1.1 {status} Trouble\r\ncontent-length: 0\r\n{close}\r\n");
        }
        (_, None) => return write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n{close}\r\n"),
        _ => {}
    }
    let (bytes, tag, headers) = object.unwrap_or_default();
    let total = if let Trouble::Total(total) = trouble { total } else { bytes.len() };
    let asked = request.head.split("range: bytes=").nth(1).and_then(|rest| rest.lines().next());
    let asked = asked.and_then(|range| range.trim().split_once('-'));
    let ranges = !matches!(trouble, Trouble::NoRanges | Trouble::NoLength);
    let (status, range, said) = match asked.filter(|_| ranges) {
        Some(_) if bytes.is_empty() => ("416 Range Not Satisfiable", 0..0, "content-range: bytes */0\r\n".to_owned()),
        Some((start, end)) => {
            let start: usize = start.parse().unwrap_or(0).min(bytes.len());
            let end = end.parse().map_or(bytes.len(), |end: usize| end + 1).min(bytes.len());
            ("206 Partial Content", start..end, format!("content-range: bytes {start}-{}/{total}\r\n", end - 1))
        }
        None => ("200 OK", 0..bytes.len(), String::new()),
    };
    let mut body = bytes[range].to_vec();
    match trouble {
        Trouble::More(more) => body.extend(std::iter::repeat_n(7, more)),
        Trouble::Flipped if body.len() > 1 => body[0] ^= 1,
        _ => {}
    }
    let length =
        if trouble == Trouble::NoLength { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let etag = if tag.is_empty() { String::new() } else { format!("etag: {tag}\r\n") };
    let modified = "last-modified: Tue, 24 Nov 2026 12:00:00 GMT\r\n";
    write!(stream, "HTTP/1.1 {status}\r\n{length}{etag}{modified}{said}{headers}{close}\r\n")?;
    if request.line.starts_with("HEAD") {
        return Ok(());
    }
    if let Trouble::Cut(most) = trouble {
        body.truncate(most);
    }
    stream.write_all(&body)?;
    stream.flush()?;
    // So that the client reads all of it before the connection is reset.
    stream.shutdown(std::net::Shutdown::Write)?;
    let _ = stream.read(&mut [0; 64]);
    Ok(())
}
