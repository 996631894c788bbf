//! What is sealed opens, whole and unchanged, in its own place; nothing else does.

use super::*;

fn ring() -> KeyRing {
    KeyRing::of(vec![DataKey::make().unwrap()]).unwrap()
}

fn name() -> ObjectName {
    "wal/1/000000010000000000000001".parse().unwrap()
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect()
}

#[test]
fn what_was_sealed_opens_again_compressed_or_not() {
    let ring = ring();
    for plain in [Vec::new(), text(1), text(LONGEST_FRAME * 2 + 17), random::<70_000>().unwrap().to_vec()] {
        let object = seal_whole(ring.newest(), &name(), Kind::Segment, &"label", 1, &plain).unwrap();
        let opener = Opener::begin(&ring, &name(), &object).unwrap();
        assert_eq!((opener.kind(), opener.label::<String>().unwrap()), (Kind::Segment, "label".to_owned()));
        assert_eq!(opener.whole(&object, plain.len()).unwrap(), plain);
        if plain.len() > 1 {
            assert!(opener.whole(&object, plain.len() - 1).is_err(), "a limit is kept");
        }
    }
}

#[test]
fn a_byte_that_was_changed_anywhere_is_found() {
    let ring = ring();
    let plain = text(3000);
    let object = seal_whole(ring.newest(), &name(), Kind::Piece, &"label", 1, &plain).unwrap();
    for at in 0..object.len() {
        let mut changed = object.to_vec();
        changed[at] ^= 0x10;
        let opened =
            Opener::begin(&ring, &name(), &changed).and_then(|opener| opener.whole(&changed, 1 << 20));
        assert!(opened.is_err(), "byte {at} of {}", object.len());
    }
    for length in 0..object.len() {
        let cut = &object[..length];
        let opened = Opener::begin(&ring, &name(), cut).and_then(|opener| opener.whole(cut, 1 << 20));
        assert!(opened.is_err(), "cut at {length}");
    }
}

#[test]
fn a_frame_opens_in_its_own_place_only() {
    let ring = ring();
    let (sealer, prologue) = Sealer::begin(ring.newest(), &name(), Kind::Pack, &1, 1).unwrap();
    let (other, _) = Sealer::begin(ring.newest(), &name(), Kind::Pack, &1, 1).unwrap();
    let opener = Opener::begin(&ring, &name(), &prologue).unwrap();
    let [mut first, mut foreign] = [Vec::new(), Vec::new()];
    sealer.frame(0, b"first", &mut first).unwrap();
    other.frame(0, b"first", &mut foreign).unwrap();
    assert_eq!(opener.frame(0, &first).unwrap(), b"first");
    assert!(opener.frame(1, &first).is_err(), "not as another one");
    assert!(opener.frame(0, &foreign).is_err(), "not in another object");
    let elsewhere = Opener::begin(&ring, &"wal/1/other".parse().unwrap(), &prologue).unwrap();
    assert!(elsewhere.frame(0, &first).is_err(), "not under another name");
    let mut longer = first.clone();
    longer.push(0);
    assert!(opener.frame(0, &longer).is_err());
}

#[test]
fn without_the_key_it_says_which_one_is_missing() {
    let ours = ring();
    let object = seal_whole(ours.newest(), &name(), Kind::Report, &"label", 1, b"plain").unwrap();
    let missing = Opener::begin(&ring(), &name(), &object).err().unwrap();
    let id = ours.newest().id().to_string();
    assert!(matches!(&missing, Trouble::NoKey { key, .. } if *key == id), "{missing}");
}

#[test]
fn garbage_is_refused_without_a_panic_and_within_bounds() {
    let ring = ring();
    let object = seal_whole(ring.newest(), &name(), Kind::Report, &"label", 1, &text(100)).unwrap();
    for round in 0..20_000_u32 {
        let noise: [u8; 96] = random().unwrap();
        let keep = (round as usize * 7) % object.len();
        let mut garbage = object[..keep].to_vec();
        garbage.extend_from_slice(&noise[..(round as usize) % noise.len()]);
        if round % 3 == 0 {
            garbage.extend_from_slice(&(round << 8).to_le_bytes());
            garbage.extend_from_slice(END);
        }
        assert!(
            Opener::begin(&ring, &name(), &garbage)
                .and_then(|opener| opener.whole(&garbage, 1 << 20))
                .is_err()
        );
    }
}
