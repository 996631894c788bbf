//! Archives as servers write them, and as nobody may.

use super::*;

/// A header as the server writes it.
fn header(name: &str, kind: u8, target: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let mut put = |at: usize, text: String| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(100, "0100600 ".to_owned());
    put(108, "0000145 ".to_owned());
    put(116, "0000156 ".to_owned());
    put(124, format!("{size:011o} "));
    put(136, "14757321007 ".to_owned());
    put(157, target.to_owned());
    put(257, "ustar\x0000".to_owned());
    put(265, "postgres".to_owned());
    header[156] = kind;
    seal(&mut header);
    header
}

fn seal(header: &mut [u8; BLOCK]) {
    header[SUM].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
}

/// Everything an archive says, given to the reader in pieces of at most `piece` bytes.
fn read(archive: &[u8], piece: usize) -> Result<(Vec<Member>, Vec<Vec<u8>>), Error> {
    let (mut tar, mut members, mut files) = (Tar::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while at < archive.len() || tar.file_is_complete() {
        let bytes = &archive[at..archive.len().min(at + piece)];
        match tar.next(bytes)? {
            Part::Filling(length) => at += length,
            Part::Member(length, member) => {
                if member.kind == Kind::File {
                    files.push(Vec::new());
                }
                members.push(member);
                at += length;
            }
            Part::Content(length) => {
                files.last_mut().unwrap().extend_from_slice(&bytes[..length]);
                at += length;
            }
            Part::FileEnd => {}
        }
    }
    if tar.may_end() { Ok((members, files)) } else { Err(Error::Protocol("cut short")) }
}

fn archive() -> Vec<u8> {
    let mut archive = Vec::new();
    archive.extend(header("base/", b'5', "", 0));
    archive.extend(header("./base/empty", b'0', "", 0));
    archive.extend(header("base/1", b'0', "", 1_000));
    archive.extend([7; 1_000]);
    archive.extend([0; 24]);
    archive.extend(header("pg_tblspc/16385/", b'2', "/srv/fast", 0));
    archive.extend(header("PG_VERSION", b'0', "", 512));
    archive.extend([9; 512]);
    archive
}

#[test]
fn an_archive_is_read_in_pieces_of_any_size_with_and_without_an_end() {
    for end in [0, 1_024, 10_240] {
        let mut archive = archive();
        archive.extend(vec![0; end]);
        for piece in [1, 3, 511, 512, 513, 4_096, 1 << 20] {
            let (members, files) = read(&archive, piece).unwrap();
            let paths: Vec<_> = members.iter().map(|member| member.path.to_str().unwrap()).collect();
            assert_eq!(paths, ["base", "base/empty", "base/1", "pg_tblspc/16385", "PG_VERSION"]);
            assert_eq!(files, [vec![], vec![7; 1_000], vec![9; 512]]);
            assert_eq!(members[3].kind, Kind::Symlink(PathBuf::from("/srv/fast")));
            let first = &members[0];
            assert_eq!((first.mode, first.uid, first.gid, first.mtime), (0o600, 0o145, 0o156, 0o14757321007));
        }
    }
}

#[test]
fn an_archive_that_is_cut_short_may_not_end() {
    let archive = archive();
    for end in [1, 511, 1_030, 1_536, 2_000, 2_559, 2_561, archive.len() - 1] {
        assert!(read(&archive[..end], 4_096).is_err(), "{end}");
    }
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "/etc/passwd",
        "../x",
        "base/../../x",
        "base//x",
        "././x",
        ".//x",
        "./../x",
        ".",
        "base/./x",
        "",
        "..",
        "/",
        "x/",
    ] {
        assert!(read(&header(name, b'0', "", 0), 512).is_err(), "{name}");
    }
    for name in ["..", "/", "", "a//"] {
        assert!(read(&header(&format!("{name}/"), b'5', "", 0), 512).is_err(), "{name}");
    }
}

#[test]
fn kinds_numbers_and_sums_that_are_wrong_are_refused() {
    assert!(read(&header("x", b'0', "", 0), 512).is_ok());
    for kind in [b'1', b'2', b'3', b'x', b'L', b'7'] {
        assert!(read(&header("x", kind, "", 0), 512).is_err(), "{kind}");
    }
    assert!(read(&header("x/", b'5', "", 512), 512).is_err());
    for (at, text) in [
        (124, &b"99999999999 "[..]),
        (124, b"-0000000001 "),
        (124, b"            "),
        (100, b"\x80\xff\xff\xff\xff\xff\xff\xff"),
    ] {
        let mut header = header("x", b'0', "", 0);
        header[at..at + text.len()].copy_from_slice(text);
        seal(&mut header);
        assert!(read(&header, 512).is_err(), "{text:?}");
    }
    for at in [0, 99, 130, 150, 156, 200, 345, 511] {
        let mut header = header("x", b'0', "", 0);
        header[at] ^= 1;
        assert!(read(&header, 512).is_err(), "{at}");
    }
    let mut after = vec![0; 512];
    after.extend(header("x", b'0', "", 0));
    assert!(read(&after, 512).is_err());
}

#[test]
fn sizes_beyond_octal_are_read() {
    let mut header = header("x", b'0', "", 0);
    let size: u64 = 9 << 30;
    header[124] = 0x80;
    header[125..128].fill(0);
    header[128..136].copy_from_slice(&size.to_be_bytes());
    seal(&mut header);
    let Part::Member(512, member) = Tar::new().next(&header).unwrap() else { panic!("no member") };
    assert_eq!(member.size, size);
}
