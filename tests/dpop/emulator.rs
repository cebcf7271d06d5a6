//! The emulated org checks every claim of a proof.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use by_jsonwebtoken::{Made, sign};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_salesforce_auth::emulator::Org;

use crate::support::{ath, requiring_org};

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

    pub(super) fn signature(made: &Made, signed: &str) -> String {
        jsonwebtoken::crypto::sign(signed.as_bytes(), &made.key, Algorithm::ES256).unwrap()
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

/// A proof with any header.
fn sign_raw(made: &Made, header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    format!("{signed}.{}", by_jsonwebtoken::signature(made, &signed))
}

#[tokio::test]
async fn r35_the_org_refuses_each_wrong_header() {
    let org = org();
    let made = Made::new();
    let claims = claims(&org);
    let good = serde_json::to_value(&made.header).unwrap();
    let with = |changes: Value| {
        let mut header = good.clone();
        let members = header.as_object_mut().unwrap();
        members.extend(changes.as_object().unwrap().clone());
        sign_raw(&made, &header, &claims)
    };
    let jwk = |name: &str, value: Value| {
        let mut jwk = good["jwk"].clone();
        jwk[name] = value;
        with(json!({ "jwk": jwk }))
    };
    let unsigned = |proof: String| format!("{}.", proof.rsplit_once('.').unwrap().0);
    for (expected, proof) in [
        ("alg", unsigned(with(json!({ "alg": "none" })))),
        ("alg", with(json!({ "alg": "none" }))),
        (
            "alg",
            with(json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "c2VjcmV0" } })),
        ),
        ("alg", with(json!({ "alg": ["ES256"] }))),
        ("signature", unsigned(with(json!({})))),
        ("typ", with(json!({ "typ": "application/dpop+jwt" }))),
        ("crit", with(json!({ "crit": ["b64"], "b64": false }))),
        ("crit", with(json!({ "crit": [] }))),
        ("crit", with(json!({ "crit": null }))),
        ("b64", with(json!({ "b64": false }))),
        ("private", jwk("d", "c2VjcmV0".into())),
        ("P-256", jwk("crv", "P-384".into())),
        ("P-256", jwk("kty", "RSA".into())),
        ("coordinates", jwk("x", Value::Null)),
        ("coordinates", jwk("x", "c2VjcmV0".into())),
        (
            "signature",
            jwk("x", URL_SAFE_NO_PAD.encode([7; 32]).into()),
        ),
        ("jwk", with(json!({ "jwk": good["jwk"].to_string() }))),
    ] {
        let (status, body) = ask(&org, &[proof]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{expected}: {body}");
        assert_eq!(body["error"], "invalid_dpop_proof", "{expected}");
        let description = body["error_description"].as_str().unwrap();
        assert!(description.contains(expected), "{expected}: {description}");
    }
    let (status, body) = ask(&org, &[with(json!({ "kid": "unused" }))]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn r35_the_org_refuses_a_token_without_its_proof() {
    let org = org();
    let made = Made::new();
    let (_, body) = ask(&org, &[sign(&made, &claims(&org))]).await;
    let token = body["access_token"].as_str().unwrap();
    let limits = format!("{}/services/data/v66.0/limits", org.instance_url());
    let id = std::cell::Cell::new(0);
    let good = || {
        id.set(id.get() + 1);
        let jti = format!("0123456789-{}", id.get());
        json!({ "htm": "GET", "htu": limits, "iat": now(), "jti": jti, "ath": ath(token) })
    };
    let proof = |claims: &Value| vec![sign(&made, claims)];
    let with = |name: &str, value: Value| {
        let mut claims = good();
        claims[name] = value;
        proof(&claims)
    };
    let used = proof(&good());
    let nonce = |nonce: &str| with("nonce", nonce.into());
    let newest = format!("nonce-{:032}", 1);
    let call = async |scheme: &str, proofs: Vec<String>| {
        let mut request =
            Request::get(&limits).header("authorization", format!("{scheme} {token}"));
        for proof in proofs {
            request = request.header("dpop", proof);
        }
        let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
        org.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(call("DPoP", used.clone()).await, StatusCode::OK);
    assert_eq!(call("dpop", proof(&good())).await, StatusCode::OK);
    for (scheme, proofs) in [
        ("DPoP", used),
        ("DPoP", vec![]),
        ("DPoP", [proof(&good()), proof(&good())].concat()),
        ("Bearer", proof(&good())),
        ("OAuth", proof(&good())),
        ("DPoP", vec![sign(&Made::new(), &good())]),
        ("DPoP", with("ath", Value::Null)),
        ("DPoP", with("ath", ath("another token").into())),
        ("DPoP", with("ath", ath(token).to_uppercase().into())),
        ("DPoP", with("htm", "POST".into())),
        ("DPoP", with("htu", format!("{limits}?a=b").into())),
        ("DPoP", with("htu", format!("{limits}#a").into())),
        ("DPoP", with("htu", format!("{limits}/").into())),
        ("DPoP", with("iat", (now() + 301).into())),
        ("DPoP", with("iat", (now() - 301).into())),
        ("DPoP", with("iat", 1_800_000_000.5.into())),
    ] {
        assert_eq!(
            call(scheme, proofs.clone()).await,
            StatusCode::UNAUTHORIZED,
            "{scheme} {proofs:?}"
        );
    }
    org.require_dpop_nonce_for_data(true);
    org.rotate_dpop_nonce();
    for (proofs, expected) in [
        (proof(&good()), StatusCode::UNAUTHORIZED),
        (nonce(&format!("nonce-{:032}", 0)), StatusCode::UNAUTHORIZED),
        (nonce(&format!("nonce-{:032}", 2)), StatusCode::UNAUTHORIZED),
        (nonce(&newest), StatusCode::OK),
    ] {
        assert_eq!(call("DPoP", proofs).await, expected);
    }
    org.rotate_dpop_nonce();
    assert_eq!(call("DPoP", nonce(&newest)).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn r35_the_org_compares_the_whole_path_of_a_relative_uri() {
    let org = org();
    let made = Made::new();
    for (htu, status) in [
        ("https://any.example/services/oauth2/token", StatusCode::OK),
        (
            "https://any.example/a/services/oauth2/token",
            StatusCode::BAD_REQUEST,
        ),
        ("/services/oauth2/token", StatusCode::BAD_REQUEST),
        ("services/oauth2/token", StatusCode::BAD_REQUEST),
        (
            "https://any.example/services/oauth2/token?a",
            StatusCode::BAD_REQUEST,
        ),
    ] {
        let mut claims = claims(&org);
        claims["htu"] = htu.into();
        claims["jti"] = htu.into();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            org.client_id(),
            org.client_secret()
        );
        let request = Request::post("/services/oauth2/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .header("dpop", sign(&made, &claims))
            .body(Full::<bytes::Bytes>::from(form))
            .unwrap();
        assert_eq!(
            org.clone().oneshot(request).await.unwrap().status(),
            status,
            "{htu}"
        );
    }
}
