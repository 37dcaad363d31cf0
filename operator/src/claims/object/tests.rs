use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    "2026-03-01T12:00:00.5Z".parse().unwrap()
}

fn wanted() -> Wanted {
    Wanted {
        which: Which {
            id: "/root/.npm".into(),
            architecture: "amd64".into(),
            number: 0,
        },
        namespace: "team".into(),
        class: None,
        size: "10Gi".into(),
        access: AccessMode::ReadWriteOnce,
    }
}

/// What [`wanted`] has become, last used half an hour ago.
fn there(change: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
    let Next::Apply { claim, .. } = next(None, &wanted(), now()) else {
        panic!("it is not made")
    };
    let mut claim = serde_json::to_value(claim).unwrap();
    claim["metadata"]["annotations"][ANNOTATION_LAST_USED] = "2026-03-01T11:30:00Z".into();
    claim["spec"]["storageClassName"] = "standard".into();
    claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "10Gi"}});
    change(&mut claim);
    serde_json::from_value(claim).unwrap()
}

#[test]
fn the_first_use_makes_a_claim_of_nobodys() {
    let Next::Apply { claim, grows: false } = next(None, &wanted(), now()) else {
        panic!("it is not made")
    };
    insta::assert_yaml_snapshot!("claim", claim);
    let mut with_class = wanted();
    with_class.class = Some("fast".into());
    with_class.access = AccessMode::ReadWriteMany;
    let Next::Apply { claim, .. } = next(None, &with_class, now()) else {
        panic!("it is not made")
    };
    assert!(!is_for_one_node(&claim));
    assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some("fast"));
}

#[test]
fn a_claim_that_is_as_it_should_be_is_left_alone() {
    assert_eq!(next(Some(&there(|_| {})), &wanted(), now()), Next::Keep);
    // Smaller is never asked of it, and class and access mode are those that it was made with.
    let other = Wanted {
        class: Some("other".into()),
        size: "1Gi".into(),
        access: AccessMode::ReadWriteMany,
        ..wanted()
    };
    assert_eq!(next(Some(&there(|_| {})), &other, now()), Next::Keep);
}

#[test]
fn its_use_is_told_once_an_hour_and_nothing_else_is_changed_by_it() {
    let later = "2026-03-01T12:30:00Z".parse().unwrap();
    let other = Wanted {
        class: Some("other".into()),
        size: "1Gi".into(),
        ..wanted()
    };
    let claim = there(|claim| claim["metadata"]["annotations"][ANNOTATION_NOT_GROWN] = "20Gi".into());
    let Next::Apply { claim, grows: false } = next(Some(&claim), &other, later) else {
        panic!("its use is not told")
    };
    assert_eq!(
        annotation(&claim, ANNOTATION_LAST_USED),
        Some("2026-03-01T12:30:00Z")
    );
    assert_eq!(annotation(&claim, ANNOTATION_NOT_GROWN), Some("20Gi"));
    assert_eq!(request(&claim), "10Gi");
    assert_eq!(
        claim.spec.unwrap().storage_class_name.as_deref(),
        Some("standard")
    );
}

#[test]
fn it_grows_and_what_its_class_does_not_allow_is_tried_once() {
    let larger = Wanted {
        size: "20Gi".into(),
        ..wanted()
    };
    let existing = there(|_| {});
    let Next::Apply { claim, grows: true } = next(Some(&existing), &larger, now()) else {
        panic!("it does not grow")
    };
    assert_eq!(request(&claim), "20Gi");
    let refused = not_grown(*claim, &existing);
    assert_eq!(request(&refused), "10Gi");
    assert_eq!(
        next(Some(&refused_as_stored(&refused)), &larger, now()),
        Next::Keep
    );
    let still_larger = Wanted {
        size: "30Gi".into(),
        ..wanted()
    };
    assert!(matches!(
        next(Some(&refused_as_stored(&refused)), &still_larger, now()),
        Next::Apply { grows: true, .. }
    ));
}

fn refused_as_stored(claim: &PersistentVolumeClaim) -> PersistentVolumeClaim {
    let mut claim = claim.clone();
    claim
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(ANNOTATION_LAST_USED.into(), "2026-03-01T11:30:00Z".into());
    claim
}

#[test]
fn one_that_cannot_be_used_is_told_with_what_to_do() {
    let deleting = there(|claim| claim["metadata"]["deletionTimestamp"] = "2026-03-01T11:59:00Z".into());
    assert!(
        matches!(next(Some(&deleting), &wanted(), now()), Next::Wait(why) if why.contains("being deleted"))
    );
    let lost = there(|claim| claim["status"]["phase"] = "Lost".into());
    assert!(
        matches!(next(Some(&lost), &wanted(), now()), Next::Refuse(why) if why.contains("delete the claim"))
    );
    let foreign = there(|claim| claim["metadata"]["labels"] = json!({}));
    assert!(matches!(next(Some(&foreign), &wanted(), now()), Next::Refuse(why) if why.contains("rename it")));
}
