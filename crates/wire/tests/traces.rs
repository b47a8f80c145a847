//! Every packet of real HomaModule exchanges decodes, and encodes again to the same bytes.
//!
//! The traces are not part of the repository: they are looked for in `$PEYK_PCAP_DIR`, else in
//! `../shared/pcap` beside the repository. Without them the tests are reported as ignored.

use flate2::read::GzDecoder;
use libtest_mimic::{Arguments, Failed, Trial};
use peyk_wire::homa::{Packet, PacketType, checksum_is_valid};
use peyk_wire::pcapng::{Carriage, Counts, Finder, Reader, Record, Writer, decode};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let directory = directory();
    let traces = traces(&directory);
    let absent = traces.is_empty();
    if absent {
        println!("SKIPPED: no traces in {} (set PEYK_PCAP_DIR)", directory.display());
    }
    let mut trials = Vec::new();
    if absent {
        trials.push(Trial::test("round_trip", || Ok(())).with_ignored_flag(true));
    }
    for trace in traces.clone() {
        let name = format!("round_trip::{}", name(&trace));
        trials.push(Trial::test(name, move || round_trip(&trace)));
    }
    let all = traces.clone();
    trials.push(
        Trial::test("all_types_of_homamodule_occur", move || all_types_occur(&all)).with_ignored_flag(absent),
    );
    let complete: Vec<_> = traces.into_iter().filter(|trace| name(trace).starts_with("42-")).collect();
    trials.push(
        Trial::test("complete_checksums_are_right", move || {
            complete.iter().try_for_each(|trace| checksums(trace))
        })
        .with_ignored_flag(absent),
    );
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn directory() -> PathBuf {
    match std::env::var_os("PEYK_PCAP_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/pcap"),
    }
}

fn traces(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut traces: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".pcap.gz"))
        .collect();
    traces.sort();
    traces
}

fn name(trace: &Path) -> String {
    trace.file_name().unwrap_or_default().to_string_lossy().replace(".pcap.gz", "")
}

fn open(trace: &Path) -> Result<impl Read, Failed> {
    Ok(GzDecoder::new(BufReader::new(File::open(trace)?)))
}

fn read(trace: &Path) -> Result<(Vec<Record>, Counts), Failed> {
    let mut reader = Reader::new(open(trace)?)?;
    let records = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((records, reader.counts()))
}

fn fail<T>(what: String) -> Result<T, Failed> {
    Err(Failed::from(what))
}

fn round_trip(trace: &Path) -> Result<(), Failed> {
    let (records, counts) = read(trace)?;
    if records.is_empty() || counts.fragments > 0 || counts.unsupported_link > 0 {
        return fail(format!("suspicious counts: {counts:?}"));
    }
    let mut again = Vec::new();
    for record in &records {
        let packet = match Packet::parse(&record.payload) {
            Ok(packet) => packet,
            Err(error) => return fail(format!("packet {}: {error}", record.number)),
        };
        again.clear();
        again.resize(packet.emit_len(), 0);
        packet.emit(&mut again);
        if again != record.payload {
            return fail(format!("packet {} differs: {packet}", record.number));
        }
        if record.envelope.carriage != Carriage::Ip || record.truncated {
            return fail(format!("packet {}: {:?}", record.number, record.envelope));
        }
    }
    let lines = decode(open(trace)?, Finder::default())?.collect::<Result<Vec<_>, _>>()?;
    if lines.len() != records.len() {
        return fail(format!("{} lines of {} packets", lines.len(), records.len()));
    }
    written_again(&records)
}

/// Our own capture of the packets is read back to the same packets.
fn written_again(records: &[Record]) -> Result<(), Failed> {
    let mut writer = Writer::new(Vec::new())?;
    for record in records {
        let (head, tail) = record.payload.split_at(record.payload.len() / 2);
        writer.write(&record.envelope, &[head, tail])?;
    }
    let file = writer.into_inner();
    let back = Reader::new(&file[..])?.collect::<Result<Vec<_>, _>>()?;
    for (record, back) in records.iter().zip(&back) {
        if (record.envelope, &record.payload) != (back.envelope, &back.payload) {
            return fail(format!("packet {} changed in writing and reading", record.number));
        }
    }
    if back.len() != records.len() {
        return fail(format!("{} packets came back of {}", back.len(), records.len()));
    }
    Ok(())
}

fn all_types_occur(traces: &[PathBuf]) -> Result<(), Failed> {
    let mut seen: BTreeMap<PacketType, u64> = BTreeMap::new();
    for trace in traces {
        for record in read(trace)?.0 {
            if let Ok(packet) = Packet::parse(&record.payload) {
                *seen.entry(packet.kind()).or_default() += 1;
            }
        }
    }
    println!("packets of {} traces: {seen:?}", traces.len());
    for kind in PacketType::ALL {
        if kind != PacketType::Unreachable && !seen.contains_key(&kind) {
            return fail(format!("no {kind} in any trace"));
        }
    }
    Ok(())
}

fn checksums(trace: &Path) -> Result<(), Failed> {
    for record in read(trace)?.0 {
        let (source, destination) = (record.envelope.source, record.envelope.destination);
        if !checksum_is_valid(&record.payload, source.ip(), destination.ip()) {
            return fail(format!("packet {}: wrong checksum", record.number));
        }
    }
    Ok(())
}
