//! Headers there and back, and archives that mean harm.

use super::*;
use crate::{Error, Limits};

fn archive(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, data) in entries {
        write_header(&mut out, entry);
        out.extend_from_slice(data);
        out.resize(out.len() + padding(data.len() as u64), 0);
    }
    out.extend_from_slice(&end_of_archive());
    out
}

fn read_all(bytes: &[u8]) -> Result<Vec<Entry>, Error> {
    let mut reader = Reader::new(bytes, Limits::default());
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        all.push(entry);
    }
    Ok(all)
}

/// A header by hand: name, type flag, size, and a chance to spoil it before the checksum is made.
fn raw(name: &str, flag: u8, size: u64, spoil: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut entry = Entry::new(name, Kind::File);
    entry.size = size;
    let mut out = Vec::new();
    write_header(&mut out, &entry);
    out[156] = flag;
    spoil(&mut out);
    out[148..156].fill(b' ');
    let sum: u32 = out.iter().map(|byte| u32::from(*byte)).sum();
    out[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    out
}

fn with_data(mut header: Vec<u8>, data: &[u8]) -> Vec<u8> {
    header.extend_from_slice(data);
    header.resize(header.len() + padding(data.len() as u64), 0);
    header
}

fn pax_header(records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        pax::write_record(&mut data, key.as_bytes(), value.as_bytes());
    }
    with_data(raw("pax", b'x', data.len() as u64, |_| {}), &data)
}

#[test]
fn every_kind_and_every_size_of_value_comes_back_as_it_was() {
    let mut entries = Vec::new();
    for (i, kind) in [
        Kind::File,
        Kind::HardLink,
        Kind::Symlink,
        Kind::Char,
        Kind::Block,
        Kind::Directory,
        Kind::Fifo,
    ]
    .into_iter()
    .enumerate()
    {
        for long in [1usize, 99, 100, 101, 255, 256, 1000, 4000] {
            let mut entry = Entry::new(vec![b'n'; long], kind);
            if kind == Kind::Directory {
                entry.path.push(b'/');
                entry.path.remove(0);
            }
            entry.mode = 0o7777 & (0o1234 + i as u32);
            entry.uid = [0, 2_097_151, 2_097_152, 4_294_967_294][i % 4];
            entry.gid = 1 << (long % 32);
            entry.mtime = (
                [0, 1, -1, 8_589_934_591, 8_589_934_592, -62_135_596_800][long % 6],
                0,
            );
            if matches!(kind, Kind::HardLink | Kind::Symlink) {
                entry.link = vec![b'l'; long];
            }
            if matches!(kind, Kind::Char | Kind::Block) {
                entry.device = (i as u32 * 1000, long as u32);
            }
            if kind == Kind::File {
                entry.xattrs = vec![
                    (b"user.a".to_vec(), vec![0, b'\n', b'=', 255]),
                    (b"user.b".to_vec(), vec![b'x'; long]),
                ];
            }
            entries.push(entry);
        }
    }
    let with_data: Vec<(Entry, &[u8])> = entries.iter().map(|entry| (entry.clone(), &b""[..])).collect();
    assert_eq!(read_all(&archive(&with_data)).unwrap(), entries);
}

#[test]
fn a_size_above_eight_gibibytes_is_a_pax_record() {
    let mut entry = Entry::new("big", Kind::File);
    entry.size = 1 << 40;
    let mut out = Vec::new();
    write_header(&mut out, &entry);
    let text = String::from_utf8_lossy(&out);
    assert!(text.contains("22 size=1099511627776\n"), "{text:?}");
}

#[test]
fn record_lengths_count_themselves_over_powers_of_ten() {
    for length in 0..1100 {
        let mut out = Vec::new();
        pax::write_record(&mut out, b"k", &vec![b'v'; length]);
        assert_eq!(
            pax::records(&out).unwrap(),
            [(&b"k"[..], &vec![b'v'; length][..])]
        );
    }
}

#[test]
fn times_have_fractions_on_both_sides_of_zero() {
    for (text, expected) in [
        ("0", Some((0, 0))),
        ("12.5", Some((12, 500_000_000))),
        ("-1.25", Some((-2, 750_000_000))),
        ("-3", Some((-3, 0))),
        ("1.1234567899", Some((1, 123_456_789))),
        ("1.", Some((1, 0))),
        ("", None),
        ("x", None),
        ("1.x", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(pax::time(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn the_gnu_and_old_dialects_are_read() {
    let long = "d/".repeat(100) + "file";
    let mut bytes = with_data(
        raw("././@LongLink", b'L', long.len() as u64 + 1, |_| {}),
        format!("{long}\0").as_bytes(),
    );
    bytes.extend(with_data(raw("././@LongLink", b'K', 3, |_| {}), b"to\0"));
    bytes.extend(raw("cut", b'2', 0, |_| {}));
    // Version 7: no magic, and a directory is a file with a slash.
    bytes.extend(raw("old/", 0, 0, |header| header[257..512].fill(0)));
    // A ustar prefix.
    bytes.extend(raw("name", b'0', 0, |header| {
        header[345..351].copy_from_slice(b"prefix");
    }));
    // GNU base 256 numbers.
    bytes.extend(raw("wide", b'0', 0, |header| {
        header[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
        header[136..148].copy_from_slice(&[0xff; 12]);
    }));
    let entries = read_all(&bytes).unwrap();
    assert_eq!(
        (&entries[0].path[..], &entries[0].link[..]),
        (long.as_bytes(), &b"to"[..])
    );
    assert_eq!(entries[1].kind, Kind::Directory);
    assert_eq!(entries[2].path, b"prefix/name");
    assert_eq!((entries[3].uid, entries[3].mtime), (4_294_967_294, (-1, 0)));
}

#[test]
fn sparse_files_are_read_in_all_four_formats() {
    let map = [(0u64, 3u64), (1000, 2)];
    let check = |bytes: &[u8], name: &str| {
        let mut reader = Reader::new(bytes, Limits::default());
        let entry = reader.next_entry().unwrap().unwrap();
        assert_eq!(
            (&entry.path[..], entry.size, entry.sparse),
            (name.as_bytes(), 5000, Some(map.to_vec())),
            "{name}"
        );
        let mut data = [0; 16];
        assert_eq!(reader.read_data(&mut data).unwrap(), 5);
        assert_eq!(&data[..5], b"abcde");
        assert!(reader.next_entry().unwrap().is_none());
    };
    let old = raw("old", b'S', 5, |header| {
        for (i, (offset, length)) in map.iter().enumerate() {
            let at = 386 + 24 * i;
            header[at..at + 24].copy_from_slice(format!("{offset:011o}\0{length:011o}\0").as_bytes());
        }
        header[483..495].copy_from_slice(b"00000011610\0");
    });
    check(&with_data(old, b"abcde"), "old");
    let zero = [
        ("GNU.sparse.size", "5000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.offset", "1000"),
        ("GNU.sparse.numbytes", "2"),
    ];
    let mut bytes = pax_header(&zero);
    bytes.extend(with_data(raw("zero", b'0', 5, |_| {}), b"abcde"));
    check(&bytes, "zero");
    let mut bytes = pax_header(&[
        ("GNU.sparse.size", "5000"),
        ("GNU.sparse.map", "0,3,1000,2"),
        ("GNU.sparse.name", "one"),
    ]);
    bytes.extend(with_data(raw("GNUSparseFile.0/one", b'0', 5, |_| {}), b"abcde"));
    check(&bytes, "one");
    let mut bytes = pax_header(&[
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "5000"),
        ("GNU.sparse.name", "two"),
    ]);
    let mut data = b"2\n0\n3\n1000\n2\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abcde");
    bytes.extend(with_data(
        raw("GNUSparseFile.0/two", b'0', data.len() as u64, |_| {}),
        &data,
    ));
    check(&bytes, "two");
}

#[test]
fn hostile_and_broken_archives_are_refused_with_a_reason() {
    let sparse = |map: &str, size: &str| {
        let mut bytes = pax_header(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]);
        bytes.extend(with_data(raw("s", b'0', 5, |_| {}), b"abcde"));
        bytes
    };
    let mut wrong_sum = raw("a", b'0', 0, |_| {});
    wrong_sum[0] = b'b';
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("garbage", b"this is no tar at all".repeat(50), "no number"),
        ("wrong checksum", wrong_sum, "wrong checksum"),
        (
            "cut header",
            raw("a", b'0', 0, |_| {})[..300].to_vec(),
            "middle of a header",
        ),
        (
            "cut data",
            with_data(raw("a", b'0', 1000, |_| {}), b"few"),
            "middle of a file",
        ),
        (
            "huge extended header",
            raw("a", b'x', 1 << 32, |_| {}),
            "an extended header of 4294967296 bytes",
        ),
        (
            "huge long name",
            raw("a", b'L', 1 << 21, |_| {}),
            "an extended header of 2097152 bytes",
        ),
        (
            "name above the limit",
            pax_then(&[("path", &"x".repeat(5000))]),
            "a name of 5000 bytes",
        ),
        ("NUL in a name", pax_then(&[("path", "a\0b")]), "NUL byte"),
        ("negative size", pax_then(&[("size", "-1")]), "the value \"-1\""),
        (
            "record without equals",
            with_data(raw("p", b'x', 6, |_| {}), b"6 abc\n"),
            "malformed PAX",
        ),
        (
            "record longer than the header",
            with_data(raw("p", b'x', 8, |_| {}), b"99 a=bc\n"),
            "malformed PAX",
        ),
        (
            "record of length zero",
            with_data(raw("p", b'x', 6, |_| {}), b"0 a=b\n"),
            "malformed PAX",
        ),
        (
            "unknown type",
            raw("a", b'Q', 0, |_| {}),
            "unknown entry type 'Q'",
        ),
        ("overlapping map", sparse("0,3,2,2", "5000"), "overlap"),
        (
            "map behind the end",
            sparse("0,3,4999,2", "5000"),
            "behind the end",
        ),
        (
            "map that wraps",
            sparse("0,3,18446744073709551615,2", "5000"),
            "overlap",
        ),
        (
            "map larger than the data",
            sparse("0,3,1000,200", "5000"),
            "does not match",
        ),
        (
            "dangling extended header",
            pax_header(&[("path", "a")]),
            "without an entry",
        ),
        (
            "zero block in the middle",
            [vec![0; 512], raw("a", b'0', 0, |_| {})].concat(),
            "zero block in the middle",
        ),
    ];
    for (name, bytes, part) in cases {
        let error = read_all(&bytes).expect_err(name).to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}

fn pax_then(records: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = pax_header(records);
    bytes.extend(raw("a", b'0', 0, |_| {}));
    bytes
}

#[test]
fn what_is_sloppy_but_clear_is_read() {
    // No trailer, no padding behind the last file, and an empty archive.
    let mut bytes = raw("a", b'0', 3, |_| {});
    bytes.extend_from_slice(b"abc");
    assert_eq!(read_all(&bytes).unwrap().len(), 1);
    assert_eq!(read_all(b"").unwrap(), []);
    assert_eq!(read_all(&[0; 1024]).unwrap(), []);
    // A comment for all that follows, as git archive writes it.
    let mut bytes = with_data(raw("pax_global_header", b'g', 13, |_| {}), b"13 comment=x\n");
    bytes.extend(raw("a", b'0', 0, |_| {}));
    assert_eq!(read_all(&bytes).unwrap().len(), 1);
}
