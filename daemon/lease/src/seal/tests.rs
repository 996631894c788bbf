//! Keys in files, and seals that are believed or not.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn pair(folder: &Path, name: &str) -> KeyPair {
    KeyPair::open(&folder.join(name)).expect("a key is made")
}

#[test]
fn base64_of_rfc_4648_section_10() {
    for (text, bytes) in [
        ("", ""),
        ("Zg==", "f"),
        ("Zm8=", "fo"),
        ("Zm9v", "foo"),
        ("Zm9vYg==", "foob"),
        ("Zm9vYmFy", "foobar"),
    ] {
        assert_eq!(base64::text(bytes.as_bytes()), text);
        assert_eq!(base64::bytes(text.as_bytes()).expect(text), bytes.as_bytes());
    }
    for wrong in ["Z", "Zg", "Zg=", "Zh==", "Z===", "====", "Zg==Zg==", "Zm 9", "Zm9v\n", "=m9v"] {
        assert_eq!(base64::bytes(wrong.as_bytes()), None, "{wrong}");
    }
}

#[test]
fn a_key_is_made_once_and_only_its_owner_can_read_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.key");
    let made = public_key(&path).expect("made");
    assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o600);
    assert_eq!(public_key(&path).expect("read"), made);
    assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 1, "nothing is left beside it");

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    assert!(matches!(public_key(&path), Err(SealError::Open { mode: 0o640, .. })));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
    std::fs::write(&path, "something else").expect("written");
    assert!(matches!(public_key(&path), Err(SealError::NoKey { .. })));
}

#[test]
fn two_that_start_at_once_have_one_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.key");
    let keys: Vec<String> = std::thread::scope(|scope| {
        let open = || scope.spawn(|| public_key(&path).expect("a key"));
        let threads: Vec<_> = (0..8).map(|_| open()).collect();
        threads.into_iter().map(|thread| thread.join().expect("joined")).collect()
    });
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn a_seal_is_believed_only_of_the_agent_whose_key_made_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (pair(folder.path(), "ours"), pair(folder.path(), "theirs"));
    let agents = BTreeMap::from([
        (AgentName::new("here"), ours.public()),
        (AgentName::new("there"), format!("{}\n", theirs.public())),
    ]);
    let seals = Seals::new(ours, &agents).expect("keys");
    let seal = seals.sign(b"the primary is lost");
    assert!(seals.is_of(&"here".into(), b"the primary is lost", &seal));
    assert!(!seals.is_of(&"there".into(), b"the primary is lost", &seal));
    assert!(!seals.is_of(&"elsewhere".into(), b"the primary is lost", &seal));
    assert!(!seals.is_of(&"here".into(), b"the primary is well", &seal));
    assert!(!seals.is_of(&"here".into(), b"the primary is lost", &seal[1..]));
    let wrong = BTreeMap::from([(AgentName::new("there"), "Zm9v".to_owned())]);
    assert!(matches!(Seals::new(theirs, &wrong), Err(SealError::NoPublicKey { .. })));
}
