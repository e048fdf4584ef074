//! A web server in threads of the test, with ranges and whatever trouble a test asks for; what is written to it is kept as S3 does.

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
    /// What was sent.
    pub body: Vec<u8>,
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
    /// Parts of objects that are not complete.
    parts: HashMap<String, Vec<Vec<u8>>>,
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
            parts: HashMap::new(),
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
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let request = Request { line: line.trim().to_owned(), head, body };
    let (trouble, object, written) = {
        let mut site = site.lock().unwrap();
        site.requests.push(request.clone());
        let trouble = (site.trouble)(&request);
        let target = request.line.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let written = if matches!(trouble, Trouble::None | Trouble::Flipped) {
            written(&request, trouble == Trouble::Flipped, &mut site)
        } else {
            None
        };
        let object = site.objects.get(target).or_else(|| site.objects.get(path)).cloned();
        let Site { after, objects, .. } = &mut *site;
        after(&request, objects);
        (trouble, object, written)
    };
    match written {
        Some(answered) => answer(stream, &request, Trouble::None, Some(answered)),
        None => answer(stream, &request, trouble, object),
    }
}

/// What S3 does with a request that writes or lists, if it is one: body, ETag and headers of the answer.
fn written(request: &Request, flipped: bool, site: &mut Site) -> Option<(Vec<u8>, String, String)> {
    let (method, target) = request.line.split_once(' ')?;
    let (path, query) = target.split(' ').next()?.split_once('?').unwrap_or((target.split(' ').next()?, ""));
    let asked: HashMap<&str, &str> = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let mut body = request.body.clone();
    if let (true, Some(byte)) = (flipped, body.first_mut()) {
        *byte ^= 1;
    }
    let xml = |text: String| Some((text.into_bytes(), String::new(), String::new()));
    match method {
        "PUT" if asked.contains_key("partNumber") => {
            let part: usize = asked["partNumber"].parse().unwrap();
            let parts = site.parts.entry(path.to_owned()).or_default();
            parts.resize(parts.len().max(part), Vec::new());
            parts[part - 1] = body;
            Some((Vec::new(), format!("\"part-{part}\""), String::new()))
        }
        "PUT" => {
            let tag = format!("\"{}\"", site.requests.len());
            site.objects.insert(path.to_owned(), (body, tag.clone(), String::new()));
            Some((Vec::new(), tag, String::new()))
        }
        "POST" if asked.contains_key("uploads") => {
            site.parts.insert(path.to_owned(), Vec::new());
            let key = "<Bucket>b</Bucket><Key>k</Key><UploadId>1</UploadId>";
            xml(format!("<InitiateMultipartUploadResult>{key}</InitiateMultipartUploadResult>"))
        }
        "POST" => {
            let (whole, tag) = (site.parts.remove(path)?.concat(), format!("\"{}-2\"", site.requests.len()));
            site.objects.insert(path.to_owned(), (whole, tag.clone(), String::new()));
            let tag = tag.replace('"', "&quot;");
            xml(format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"))
        }
        "GET" if asked.contains_key("list-type") => {
            let prefix = format!("{path}/{}", asked.get("prefix").unwrap_or(&"").replace("%2F", "/"));
            let mut found: Vec<_> = site.objects.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
            found.sort();
            let object = |(name, (bytes, tag, _)): (&String, &(Vec<u8>, String, String))| {
                let (key, tag) = (&name[path.len() + 1..], tag.replace('"', "&quot;"));
                let time = "<LastModified>2026-11-24T12:00:00.000Z</LastModified>";
                format!("<Contents><Key>{key}</Key>{time}<ETag>{tag}</ETag><Size>{}</Size></Contents>", bytes.len())
            };
            let all: String = found.into_iter().map(object).collect();
            xml(format!("<ListBucketResult><IsTruncated>false</IsTruncated>{all}</ListBucketResult>"))
        }
        _ => None,
    }
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
