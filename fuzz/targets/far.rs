//! Archives, and what servers answer on a folder.

use super::source::data;
use super::{Room, answered_by};
use ddl::data::storage::{Archive, Known, Patience, SetFile, Staging, Sum, fetch_known, stage};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FILES: &[SetFile] =
    &[SetFile { name: "train.bin", sum: Sum::Unknown }, SetFile { name: "test.bin", sum: Sum::Unknown }];
const SET: Known = Known {
    name: "made",
    about: "",
    source: "cifar100",
    folder: "",
    places: &[],
    by_hand: "",
    archive: Some(Archive { file: SetFile { name: "a.tar.gz", sum: Sum::Unknown }, most_bytes: 1 << 20 }),
    files: FILES,
};

/// An archive, packed unless it is already: fetched by name, and opened as a data set.
pub fn tar(room: &Room, bytes: &[u8]) {
    let mut packed = bytes.to_vec();
    if !bytes.starts_with(b"\x1f\x8b") {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packed = packer.finish().unwrap();
    }
    let path = room.put("a.tar.gz", &packed);
    let mirror = room.path("").display().to_string();
    answered_by(&[2, 65, 74], fetch_known(&SET, Some(&mirror), &room.path("out"), &Staging::default()));
    for source in ["cifar10", "cifar100"] {
        data(room, source, "", &path, None);
    }
}

/// What the server says.
#[derive(Default)]
struct Answers {
    folder: Vec<u8>,
    folder_type: &'static str,
    /// Header lines of an object.
    of_object: String,
    /// Further answers on a folder: a server that lies can go on for ever.
    left: usize,
}

const LISTINGS: usize = 40;

struct Server {
    host: String,
    answers: Arc<Mutex<Answers>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answers = Arc::new(Mutex::new(Answers::default()));
        let known = answers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &known);
            }
        });
        Server { host, answers }
    }
}

/// The host of a server that says this; each thread has its own.
fn server(answers: Answers) -> String {
    thread_local! {
        static SERVER: Server = Server::start();
    }
    SERVER.with(|server| {
        *server.answers.lock().unwrap() = answers;
        server.host.clone()
    })
}

/// A folder for what ends in `/` or asks for a listing; anything else is an object of three bytes.
fn answer(mut stream: TcpStream, answers: &Mutex<Answers>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut line) = (String::new(), String::from("-"));
    reader.read_line(&mut first)?;
    while !line.trim().is_empty() {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let target = first.split(' ').nth(1).unwrap_or_default();
    let mut answers = answers.lock().unwrap();
    let is_folder = target.ends_with('/') || target.contains("STATUS");
    let mut all = if is_folder && answers.left == 0 {
        b"HTTP/1.1 404 None\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
    } else if is_folder {
        let (kind, length) = (answers.folder_type, answers.folder.len());
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
            .into_bytes()
    } else {
        format!("HTTP/1.1 206 Partial\r\n{}content-length: 3\r\nconnection: close\r\n\r\nabc", answers.of_object)
            .into_bytes()
    };
    if is_folder && answers.left > 0 {
        answers.left -= 1;
        all.extend_from_slice(&answers.folder);
    }
    drop(answers);
    stream.write_all(&all)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let _ = reader.read(&mut [0; 64]);
    Ok(())
}

fn staged(room: &Room, url: &str) {
    let silence = Duration::from_secs(2);
    let patience = Patience { attempts: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO, silence };
    let how = Staging { cache: Some(room.path("cache")), source: "csv".into(), patience, ..Staging::default() };
    answered_by(&[2, 65, 74], stage(url, &how));
}

/// Content-Range, ETag and a checksum of every object, a line each, and then a server's page on a folder.
pub fn index(room: &Room, bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |&byte| byte == b'\n');
    let mut of_object = String::new();
    for name in ["content-range", "etag", "digest"] {
        let value = String::from_utf8_lossy(parts.next().unwrap_or_default());
        let value: String = value.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).collect();
        of_object += &format!("{name}: {value}\r\n");
    }
    let folder = parts.next().unwrap_or_default().to_vec();
    let host = server(Answers { folder, folder_type: "text/html", of_object, left: LISTINGS });
    staged(room, &format!("http://{host}/data/"));
}

/// WebHDFS on a path and on a folder.
pub fn webhdfs(room: &Room, bytes: &[u8]) {
    let (folder, of_object) = (bytes.to_vec(), String::new());
    let host = server(Answers { folder, folder_type: "application/json", of_object, left: LISTINGS });
    staged(room, &format!("webhdfs://{host}/data"));
}
