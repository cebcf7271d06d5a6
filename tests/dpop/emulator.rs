//! The emulated org checks every claim of a proof.

use by_jsonwebtoken::{Made, sign};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_salesforce_auth::emulator::Org;

use crate::support::requiring_org;

/// Proofs made by another library, with any claims.
mod by_jsonwebtoken {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
    use serde_json::Value;

    pub(super) struct Made {
        key: EncodingKey,
        pub(super) header: Header,
    }

    impl Made {
        pub(super) fn new() -> Self {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let key = EncodingKey::from_ec_der(&pair.serialize_der());
            let mut header = Header::new(Algorithm::ES256);
            header.typ = Some("dpop+jwt".to_owned());
            header.jwk = Some(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap());
            Self { key, header }
        }
    }

    pub(super) fn sign(made: &Made, claims: &Value) -> String {
        jsonwebtoken::encode(&made.header, claims, &made.key).unwrap()
    }
}

fn now() -> u64 {
    1_800_000_000
}

fn org() -> Org {
    let org = requiring_org();
    org.set_clock(|| std::time::UNIX_EPOCH + std::time::Duration::from_secs(now()));
    org
}

fn claims(org: &Org) -> Value {
    json!({ "htm": "POST", "htu": org.token_url(), "iat": now(), "jti": "0123456789abcdef" })
}

/// Asks for a token with these proofs.
async fn ask(org: &Org, proofs: &[String]) -> (StatusCode, Value) {
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        org.client_id(),
        org.client_secret()
    );
    let mut request =
        Request::post(org.token_url()).header("content-type", "application/x-www-form-urlencoded");
    for proof in proofs {
        request = request.header("dpop", proof);
    }
    let request = request.body(Full::<bytes::Bytes>::from(form)).unwrap();
    let response = org.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn r35_the_org_accepts_the_proofs_of_another_library() {
    let org = org();
    let made = Made::new();
    let (status, body) = ask(&org, &[sign(&made, &claims(&org))]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["token_type"], "DPoP");
}

#[tokio::test]
async fn r35_the_org_refuses_each_wrong_claim() {
    let org = org();
    let made = Made::new();
    let with = |name: &str, value: Value| {
        let mut claims = claims(&org);
        claims[name] = value;
        sign(&made, &claims)
    };
    let good = sign(&made, &claims(&org));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let other = sign(&Made::new(), &claims(&org));
    let (_, other_signature) = other.rsplit_once('.').unwrap();
    let mut untyped = Made::new();
    untyped.header.typ = Some("JWT".to_owned());
    let mut keyless = Made::new();
    keyless.header.jwk = None;
    let cases = [
        ("htm", vec![with("htm", "GET".into())]),
        ("htm", vec![with("htm", "post".into())]),
        (
            "htu",
            vec![with("htu", format!("{}?a=b", org.token_url()).into())],
        ),
        (
            "htu",
            vec![with(
                "htu",
                "https://example.com/services/oauth2/token".into(),
            )],
        ),
        ("iat", vec![with("iat", (now() - 301).into())]),
        ("iat", vec![with("iat", (now() + 301).into())]),
        ("iat", vec![with("iat", Value::Null)]),
        ("jti", vec![with("jti", "short".into())]),
        ("jti", vec![with("jti", Value::Null)]),
        ("ath", vec![with("ath", "hash".into())]),
        ("signature", vec![format!("{signed}.{other_signature}")]),
        ("typ", vec![sign(&untyped, &claims(&org))]),
        ("jwk", vec![sign(&keyless, &claims(&org))]),
        ("more than one", vec![good.clone(), other.clone()]),
        ("JWT", vec!["nonsense".to_owned()]),
        ("requires", vec![]),
    ];
    for (expected, proofs) in cases {
        let (status, body) = ask(&org, &proofs).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{expected}: {body}");
        assert_eq!(body["error"], "invalid_dpop_proof", "{expected}");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.contains(expected), "{expected}: {description}");
    }
    assert_eq!(
        ask(&org, std::slice::from_ref(&good)).await.0,
        StatusCode::OK
    );
    let (_, body) = ask(&org, &[good]).await;
    assert_eq!(body["error_description"], "jti was used before");
}
