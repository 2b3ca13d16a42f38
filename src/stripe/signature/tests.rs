//! What the verifier takes and what it refuses.

use proptest::prelude::*;

use super::*;

const NOW_S: i64 = 1_700_000_000;
const BODY: &[u8] = br#"{"id":"evt_test_webhook","object":"event"}"#;
/// stripe-python 16.1.0 and stripe-node 23.1.0 accept it for the secret, time and body above.
const V1: &str = "d95c6b7477fbd7e9f90b1b0ef5f9c7ac25abca5382460e0d988c2b2a5b71b990";

fn secret() -> Secret {
    "whsec_test_secret".into()
}

fn check(header: &str) -> Result<(), SignatureError> {
    verify(header, BODY, &[secret()], NOW_S)
}

#[test]
fn takes_what_the_official_libraries_take() {
    assert_eq!(check(&format!("t={NOW_S},v1={V1}")), Ok(()));
    assert_eq!(sign(&secret(), NOW_S, BODY), format!("t={NOW_S},v1={V1}"));
    let wrong = "0".repeat(64);
    assert_eq!(check(&format!("v0={V1},t={NOW_S},v1={wrong},v1={V1},v0={wrong}")), Ok(()));
}

#[test]
fn while_secrets_rotate_either_signature_with_either_secret_is_enough() {
    let (old, new): (Secret, Secret) = ("whsec_old".into(), "whsec_new".into());
    let both = format!("{},v1={}", sign(&old, NOW_S, BODY), signature("whsec_new", &NOW_S.to_string(), BODY));
    assert_eq!(verify(&both, BODY, std::slice::from_ref(&new), NOW_S), Ok(()));
    assert_eq!(verify(&sign(&old, NOW_S, BODY), BODY, &[new.clone(), old], NOW_S), Ok(()));
    assert_eq!(verify(&sign(&secret(), NOW_S, BODY), BODY, &[new], NOW_S), Err(SignatureError::NoMatch));
}

#[test]
fn the_tolerance_holds_on_both_sides() {
    let cases = [
        (-SIGNATURE_AGE_S_MAX, Ok(())),
        (SIGNATURE_AGE_S_MAX, Ok(())),
        (-SIGNATURE_AGE_S_MAX - 1, Err(SignatureError::TooOld)),
        (SIGNATURE_AGE_S_MAX + 1, Err(SignatureError::TooNew)),
    ];
    for (offset, expected) in cases {
        assert_eq!(check(&sign(&secret(), NOW_S + offset, BODY)), expected, "{offset}");
    }
}

#[test]
fn an_unsigned_request_never_learns_about_the_time() {
    assert_eq!(check(&format!("t=1,v1={}", "0".repeat(64))), Err(SignatureError::NoMatch));
}

#[test]
fn an_empty_secret_opens_nothing() {
    let empty: Secret = "".into();
    let header = sign(&empty, NOW_S, BODY);
    assert_eq!(verify(&header, BODY, &[empty], NOW_S), Err(SignatureError::NoMatch));
    assert_eq!(verify(&header, BODY, &[], NOW_S), Err(SignatureError::NoMatch));
}

#[test]
fn odd_headers_are_refused_even_with_a_right_signature() {
    for missing in ["", " ", "\t"] {
        assert_eq!(check(missing), Err(SignatureError::Missing), "{missing:?}");
    }
    let many = format!("t={NOW_S}{}", format!(",v1={V1}").repeat(SIGNATURES_MAX + 1));
    let long = format!("t={NOW_S},v1={V1},v0={}", "0".repeat(SIGNATURE_HEADER_BYTES_MAX));
    let odd = [
        format!("v1={V1}"),
        format!("t={NOW_S}"),
        format!("t={NOW_S},v0={V1}"),
        format!("t={NOW_S},t={NOW_S},v1={V1}"),
        format!("t=+{NOW_S},v1={V1}"),
        format!("t=-{NOW_S},v1={V1}"),
        format!("t={NOW_S}junk,v1={V1}"),
        format!("t= {NOW_S},v1={V1}"),
        format!("t=,v1={V1}"),
        format!("t={}{NOW_S},v1={V1}", "0".repeat(TIME_CHARS_MAX)),
        format!("t={NOW_S},v1={V1},"),
        format!("t={NOW_S};v1={V1}"),
        many,
        long,
    ];
    for header in odd {
        assert_eq!(check(&header), Err(SignatureError::Malformed), "{header}");
    }
}

#[test]
fn a_signature_in_capitals_is_not_stripes() {
    assert_eq!(check(&format!("t={NOW_S},v1={}", V1.to_uppercase())), Err(SignatureError::NoMatch));
}

proptest! {
    #[test]
    fn no_header_panics(header: String, body in proptest::collection::vec(any::<u8>(), 0..64), now: i64) {
        prop_assert!(verify(&header, &body, &[secret()], now).is_err());
    }

    #[test]
    fn no_text_in_the_right_places_panics(time in "[0-9+. -]{0,20}", v1 in "[0-9a-fé]{0,70}", now: i64) {
        let header = format!("t={time},v1={v1}");
        prop_assert!(verify(&header, BODY, &[secret()], now).is_err());
    }

    #[test]
    fn what_was_signed_is_believed(body in proptest::collection::vec(any::<u8>(), 0..512), key in "[!-~]{1,80}") {
        let key = Secret::from(key);
        let header = sign(&key, NOW_S, &body);
        prop_assert_eq!(verify(&header, &body, &[key], NOW_S), Ok(()));
    }

    #[test]
    fn one_other_bit_in_the_body_is_refused(
        body in proptest::collection::vec(any::<u8>(), 1..512),
        at: proptest::sample::Index,
        bit in 0u8..8,
    ) {
        let header = sign(&secret(), NOW_S, &body);
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= 1 << bit;
        prop_assert_eq!(verify(&header, &changed, &[secret()], NOW_S), Err(SignatureError::NoMatch));
    }

    /// The highest bit is left alone: what is not ASCII is no header text.
    #[test]
    fn one_other_bit_in_the_header_is_refused(at: proptest::sample::Index, bit in 0u8..7) {
        let mut header = sign(&secret(), NOW_S, BODY).into_bytes();
        let at = at.index(header.len());
        header[at] ^= 1 << bit;
        let header = String::from_utf8(header).unwrap();
        prop_assert!(check(&header).is_err(), "{header}");
    }

    #[test]
    fn another_secret_is_refused(other in "[!-~]{1,80}") {
        prop_assume!(other != "whsec_test_secret");
        let header = sign(&secret(), NOW_S, BODY);
        let verdict = verify(&header, BODY, &[other.into()], NOW_S);
        prop_assert_eq!(verdict, Err(SignatureError::NoMatch));
    }
}
