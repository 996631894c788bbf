//! Batches as text, and what is refused.

use super::*;

fn records(first: u64, count: u64) -> Vec<Stamped> {
    let record = |sequence: u64| Stamped {
        sequence,
        at: Moment::from_millis(1000 + sequence),
        record: Record::AgentStarted {
            agent: "east".into(),
            version: format!("line one\nline \"two\" {sequence}"),
        },
    };
    (first..first + count).map(record).collect()
}

#[test]
fn what_is_written_is_read() {
    let written = records(41, 300);
    let text = encode(&written).expect("text");
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 300, "a line each");
    assert_eq!(decode(41, &text).expect("read"), written);
}

#[test]
fn every_flipped_byte_is_found() {
    let text = encode(&records(7, 1)).expect("text");
    let before: usize = text.split(|byte| *byte == b' ').take(3).map(|part| part.len() + 1).sum();
    let sum = before..before + 8;
    // The last byte ends the line, and a line that does not end is read as well.
    for at in 0..text.len() - 1 {
        for bit in 0..8 {
            let mut flipped = text.clone();
            flipped[at] ^= 1 << bit;
            // A digit of the sum in the other case is the same sum.
            let same = sum.contains(&at) && flipped.eq_ignore_ascii_case(&text);
            assert_eq!(decode(7, &flipped).is_ok(), same, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_batch_under_another_place_is_refused() {
    let text = encode(&records(7, 2)).expect("text");
    assert_eq!(decode(8, &text).unwrap_err(), "record 8 is missing; there is 7 in its place");
    assert_eq!(decode(7, b"").unwrap_err(), "the batch at 7 is empty");
    assert_eq!(decode(7, b"\xff").unwrap_err(), "the batch at 7 is no text");
    assert_eq!(decode(7, b"1 7 1007 00000000").unwrap_err(), "record 7 is not written as a record");
    let mut gap = encode(&records(7, 1)).expect("text");
    gap.extend(encode(&records(9, 1)).expect("text"));
    assert_eq!(decode(7, &gap).unwrap_err(), "record 8 is missing; there is 9 in its place");
}

#[test]
fn a_record_of_a_newer_lifeboat_says_what_to_do() {
    let body = r#"{"record":"not-known-yet"}"#;
    let at = Moment::from_millis(5);
    let line = |version: u32| format!("{version} 3 5 {:08x} {body}\n", sum(3, at, version, body));
    let newer = decode(3, line(VERSION + 1).as_bytes()).unwrap_err();
    assert!(newer.contains("Install the newer lifeboat"), "{newer}");
    let same = decode(3, line(VERSION).as_bytes()).unwrap_err();
    assert!(same.starts_with("record 3 cannot be understood"), "{same}");
}
