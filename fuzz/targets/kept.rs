//! What the program keeps: weights, checkpoints and runs. Seals and checksums are made anew, so that what they guard is reached.

use super::{Room, answered, answered_by};
use ddl::store::{RunFile, RunInfo, inspect, read_run, weights};
use sha2::{Digest, Sha256};

pub fn safetensors(room: &Room, bytes: &[u8]) {
    let path = room.put("w.safetensors", bytes);
    answered(weights::read(&path));
    answered(inspect::describe(&path));
}

const SEAL_BYTES: usize = 512;

/// The file with the seal that its bytes call for.
fn sealed(title: &str, bytes: &[u8]) -> Vec<u8> {
    let body = bytes.get(SEAL_BYTES..).unwrap_or_default();
    let sum: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = format!("{title}\nsha256 of all bytes from 512 on: {sum}\n").into_bytes();
    file.resize(SEAL_BYTES, 0);
    file.extend_from_slice(body);
    file
}

pub fn checkpoint(room: &Room, bytes: &[u8]) {
    let path = room.put("step-00000001.h5", &sealed("ddl checkpoint", bytes));
    room.survives(|| {
        if let Some(found) = answered(ddl::store::checkpoint::read(&path)) {
            answered_by(&[2], ddl::config::Job::parse(&found.config, "checkpoint", &[]));
        }
        answered(inspect::describe(&path));
        answered(weights::read(&path));
    });
}

pub fn run(room: &Room, bytes: &[u8]) {
    let path = room.put("run.h5", &sealed("ddl run", bytes));
    room.survives(|| {
        answered(read_run(&path));
        answered(inspect::describe(&path));
    });
}

/// A run that goes on where its journal ends.
pub fn journal(room: &Room, bytes: &[u8]) {
    room.put("run.journal", &checked(bytes.to_vec()));
    let path = room.path("run.h5");
    let info = RunInfo { name: "a", config: "", ranks: 1, commit: "", environment: &[] };
    if let Some(mut run) = answered(RunFile::resume(&path, &info, 2, 3)) {
        run.epoch(&[("epoch", 3.0)]).unwrap();
        answered(run.finish("done"));
        answered(inspect::describe(&path));
    }
}

/// A journal whose records have the right checksums.
fn checked(mut journal: Vec<u8>) -> Vec<u8> {
    let mut at = b"ddl journal 1\n".len();
    while let Some(length) = journal.get(at..at + 4) {
        let end = (at + 8).saturating_add(u32::from_le_bytes(length.try_into().unwrap()) as usize);
        let Some(payload) = journal.get(at + 8..end) else { break };
        let sum = crc32fast::hash(payload).to_le_bytes();
        journal[at + 4..at + 8].copy_from_slice(&sum);
        at = end;
    }
    journal
}
