//! Any bytes as a capture file: read, decode, write, read again.

use peyk_wire::pcapng::{Finder, Reader, Record, Writer, decode};

/// Does what the target claims with one input; panics where the claim fails.
pub fn run(bytes: &[u8]) {
    let Ok(mut reader) = Reader::new(bytes) else { return };
    let mut records: Vec<Record> = Vec::new();
    let mut errors = 0;
    for record in reader.by_ref() {
        match record {
            Ok(record) => records.push(record),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                errors += 1;
            }
        }
    }
    assert!(errors <= 1, "reading went on after an error");
    let counts = reader.counts();
    assert_eq!(counts.homa, records.len() as u64);
    let lines = decode(bytes, Finder::default()).expect("it was read before");
    assert_eq!(lines.filter(|line| line.is_ok()).count(), records.len());

    // What the writer takes comes back as it was. It refuses packets that are longer than an IP
    // packet can be (a capture without lengths in its headers may hold some).
    let mut writer = Writer::new(Vec::new()).expect("memory takes all");
    records.retain(|record| writer.write(&record.envelope, &[&record.payload]).is_ok());
    let file = writer.into_inner();
    let back = Reader::new(&file[..]).expect("it was just written");
    let mut written = records.iter();
    for back in back {
        let back = back.expect("it was just written");
        let record = written.next().expect("no packet more than was written");
        assert_eq!((back.envelope, &back.payload), (record.envelope, &record.payload));
    }
    assert!(written.next().is_none(), "no packet less than was written");
}
