use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use jsonwebtoken::{EncodingKey, Header, encode};
use mcpmesh_ir::gateway::Anonymous;
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use super::*;
use crate::identity::{Arrival, Credential, KeyTable, Refusal, tests::gateway};

const NOW: i64 = 1_800_000_000;

/// An issuer with one key, `k`, and its key table.
struct Issuing {
    key: KeyPair,
    table: KeyTable,
}

fn jwk(key: &KeyPair) -> Value {
    // An uncompressed point: 4, x, y.
    let point = key.der_bytes();
    let part = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    json!({"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "use": "sig", "x": part(1..33), "y": part(33..65)})
}

fn issuer(keys: &Value) -> TokenIssuer {
    TokenIssuer {
        issuer: "https://issuer".to_owned(),
        audiences: vec!["mcp".to_owned(), "other".to_owned()],
        keys: serde_json::value::to_raw_value(&json!({"keys": keys})).unwrap(),
    }
}

impl Issuing {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut table = KeyTable::new(&gateway(Anonymous::Allow), &[]).0;
        table.trust(&issuer(&json!([jwk(&key)]))).unwrap();
        Self { key, table }
    }

    fn sign(&self, head: &Header, claims: &Value) -> String {
        encode(head, claims, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }

    fn ask(&self, values: &[String], now: i64) -> Result<Identity, Refusal> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {value}")).unwrap());
        }
        let credential = KeyTable::credential(&headers, &Arrival::Open)?;
        self.table.known(&credential, now).map(|known| known.identity.clone())
    }
}

fn head() -> Header {
    Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::ES256) }
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "sub": "system:serviceaccount:team:bot", "aud": ["mcp"], "exp": NOW + 600,
           "nbf": NOW - 10, "kubernetes.io": {"namespace": "team", "pod": {"name": "p"}}})
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

fn raw(head: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    format!(
        "{}.{}.{}",
        part(head.to_string().as_bytes()),
        part(claims.to_string().as_bytes()),
        part(signature)
    )
}

#[test]
fn a_service_account_is_its_subject_with_its_groups() {
    let issuing = Issuing::new();
    let identity = issuing.ask(&[issuing.sign(&head(), &claims())], NOW).unwrap();
    assert_eq!(identity.issuer, Issuer::Token("https://issuer".to_owned()));
    assert_eq!(identity.user.as_deref(), Some("system:serviceaccount:team:bot"));
    assert_eq!(identity.groups, ["system:serviceaccounts", "system:serviceaccounts:team"]);
    assert_eq!(identity.principal(), "https://issuer#system:serviceaccount:team:bot");
}

#[test]
fn an_audience_may_be_one_of_several_or_stand_alone() {
    let issuing = Issuing::new();
    for audience in [json!("mcp"), json!(["x", "other"])] {
        assert!(issuing.ask(&[issuing.sign(&head(), &with("aud", audience))], NOW).is_ok());
    }
}

#[test]
fn forged_tokens_are_nobodys() {
    let issuing = Issuing::new();
    let other = Issuing::new();
    let crit = json!({"alg": "ES256", "kid": "k", "crit": ["b64"], "b64": false});
    let good = issuing.sign(&head(), &claims());
    let (body, signature) = good.rsplit_once('.').unwrap();
    let forged = [
        ("alg none", raw(&json!({"alg": "none", "kid": "k"}), &claims(), b"")),
        ("a signature of nothing", format!("{body}.")),
        (
            "another payload",
            raw(
                &serde_json::to_value(head()).unwrap(),
                &with("sub", json!("root")),
                &URL_SAFE_NO_PAD.decode(signature).unwrap(),
            ),
        ),
        ("HS256 with the public key", {
            let secret = EncodingKey::from_secret(issuing.key.der_bytes());
            encode(&Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::HS256) }, &claims(), &secret)
                .unwrap()
        }),
        ("an unknown key id", issuing.sign(&Header { kid: Some("l".to_owned()), ..head() }, &claims())),
        ("no key id", issuing.sign(&Header { kid: None, ..head() }, &claims())),
        ("another's key", other.sign(&head(), &claims())),
        ("crit", raw(&crit, &claims(), b"signature")),
        ("another issuer", issuing.sign(&head(), &with("iss", json!("https://evil")))),
        ("another audience", issuing.sign(&head(), &with("aud", json!(["kubernetes"])))),
        ("no audience", issuing.sign(&head(), &with("aud", json!([])))),
        ("expired past the leeway", issuing.sign(&head(), &with("exp", json!(NOW - 60)))),
        ("no expiry", issuing.sign(&head(), &with("exp", Value::Null))),
        ("not yet", issuing.sign(&head(), &with("nbf", json!(NOW + 61)))),
        ("no subject", issuing.sign(&head(), &with("sub", json!("")))),
    ];
    for (what, token) in forged {
        assert_eq!(issuing.ask(&[token], NOW), Err(Refusal::Token), "{what}");
        assert_eq!(Refusal::Token.status(), 401);
    }
    assert_eq!(issuing.ask(&[good.clone(), good], NOW), Err(Refusal::Malformed));
}

#[test]
fn a_signed_token_with_crit_is_refused_though_its_signature_holds() {
    let issuing = Issuing::new();
    let mut head = head();
    head.crit = Some(vec!["exp".to_owned()]);
    assert_eq!(issuing.ask(&[issuing.sign(&head, &claims())], NOW), Err(Refusal::Token));
}

#[test]
fn a_remembered_token_expires_all_the_same() {
    let issuing = Issuing::new();
    let token = issuing.sign(&head(), &claims());
    assert!(issuing.ask(std::slice::from_ref(&token), NOW + 659).is_ok());
    assert_eq!(issuing.ask(&[token], NOW + 660), Err(Refusal::Token));
}

#[test]
fn a_streams_end_is_the_tokens_with_leeway() {
    let issuing = Issuing::new();
    let token: std::sync::Arc<str> = issuing.sign(&head(), &claims()).into();
    let credential = Credential::Token(token, [0; 32]);
    assert_eq!(issuing.table.expires(&credential, NOW), Some(NOW + 660));
    assert_eq!(issuing.table.expires(&credential, NOW + 660), Some(0));
    assert!(!format!("{credential:?}").contains("eyJ"));
}

#[test]
fn an_issuer_without_a_public_key_is_rejected() {
    let secret = json!([{"kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256"}]);
    for keys in [secret, json!([])] {
        assert!(Verifier::new(&issuer(&keys)).is_err());
    }
}

#[test]
fn an_api_key_is_told_from_a_token_by_its_form() {
    for key in ["mm_abc", "a.b.c", "a.b", "e30.e30.x"] {
        assert!(!is_token(key), "{key}");
    }
    assert!(is_token(&raw(&json!({"alg": "RS256"}), &json!({}), b"x")));
}
