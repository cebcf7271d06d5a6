//! Secrets in the output of flows, calls and errors (R17).

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full};
use tower::service_fn;
use tower_salesforce_auth::{
    BoxError, LoginUrl, RefreshError, RefreshFn, Secret, Session,
    emulator::Org,
    flow::{
        AuthorizationCode, ClientCredentials, DeviceAuthorization, ExtensionGrant, HttpClient,
        JwtBearer, RefreshToken, SamlBearer, SoapLogin, SubjectTokenType, TokenExchange,
        UsernamePassword,
    },
    oauth::{self, App, Callback, ClientAuthentication, PendingAuthorization, Pkce, PrivateKey},
};

use crate::support::{answering, production_app};

/// Every secret of these tests contains this.
const MARK: &str = "hush";
const VERIFIER: &str = "hush-hush-hush-hush-hush-hush-hush-hush-hush";

fn show(shown: &mut Vec<String>, error: &RefreshError) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        shown.push(format!("{error} {error:?}"));
        cause = error.source();
    }
}

async fn try_flow(shown: &mut Vec<String>, flow: impl RefreshFn + std::fmt::Debug) {
    shown.push(format!("{flow:?} {flow:#?}"));
    match flow.log_in().await {
        Ok(session) => shown.push(format!("{session:?}")),
        Err(error) => show(shown, &error),
    }
}

/// Runs every flow and call with this client, and keeps their output.
async fn try_everything(shown: &mut Vec<String>, client: impl HttpClient, org: &Org) {
    let login_url = LoginUrl::production;
    let app = App::new(login_url(), "3MVG9").client_secret("SECRET-hush");
    let basic = ClientAuthentication::secret_basic("SECRET-hush");
    let key = PrivateKey::from_pem(org.jwt_private_key()).unwrap();
    let by_key = ClientAuthentication::private_key_jwt(key.clone());
    let c = || client.clone();
    shown.push(format!("{app:?} {basic:?} {by_key:?} {key:?}"));

    try_flow(shown, RefreshToken::new(c(), app.clone(), "REFRESH-hush")).await;
    for authentication in [basic, by_key] {
        let app = app.clone().client_authentication(authentication);
        try_flow(shown, ClientCredentials::new(c(), app)).await;
    }
    let password = UsernamePassword::new(c(), app.clone(), "user", "PASSWORD-hush");
    try_flow(shown, password.security_token("TOKEN-hush")).await;
    let soap = SoapLogin::new(c(), login_url(), "user", "PASSWORD-hush");
    try_flow(shown, soap.security_token("TOKEN-hush")).await;
    try_flow(shown, JwtBearer::new(c(), app.clone(), "user", key)).await;
    try_flow(
        shown,
        JwtBearer::from_assertion(c(), login_url(), "ASSERTION-hush"),
    )
    .await;
    try_flow(shown, SamlBearer::new(c(), login_url(), "ASSERTION-hush")).await;
    let grant = ExtensionGrant::new(c(), app.clone(), "urn:example").parameter("code", "CODE-hush");
    try_flow(shown, grant).await;
    let exchange = TokenExchange::new(c(), app.clone(), "SUBJECT-hush", SubjectTokenType::Jwt);
    try_flow(shown, exchange).await;
    let device = DeviceAuthorization::new(c(), app.clone());
    match device.begin().await {
        Ok(code) => shown.push(format!("{code:?}")),
        Err(error) => show(shown, &error),
    }
    try_flow(shown, device).await;

    let flow = AuthorizationCode::new(c(), app.clone(), "https://app.example.com/callback");
    let request = flow
        .authorization_url()
        .state("STATE-hush")
        .pkce(Pkce::from_verifier(VERIFIER).unwrap());
    shown.push(format!("{request:?}"));
    shown.push(format!("{:?}", request.build().unwrap()));
    let pending = PendingAuthorization::new("STATE-hush", VERIFIER).unwrap();
    let callback = "/callback?code=CODE-hush&state=STATE-hush";
    shown.push(format!(
        "{pending:?} {:?}",
        Callback::parse(callback).unwrap()
    ));
    for callback in [
        callback,
        "/callback?code=CODE-hush&state=OTHER-hush",
        "/callback?state=STATE-hush",
        "/callback?code=CODE-hush&code=CODE-hush",
    ] {
        match flow.exchange(&pending, callback).await {
            Ok(session) => shown.push(format!("{session:?}")),
            Err(error) => show(shown, &error),
        }
    }

    let token = Secret::from("TOKEN-hush");
    match oauth::refresh_token(c(), &app, &token).await {
        Ok(response) => shown.push(format!(
            "{response:?} {:?}",
            response.clone().into_session(&login_url())
        )),
        Err(error) => show(shown, &error),
    }
    if let Err(error) = oauth::introspect(c(), &app, &token).await {
        show(shown, &error);
    }
    if let Err(error) = oauth::revoke(c(), &app, &token).await {
        show(shown, &error);
    }
    let session = Session::new("ACCESS-hush", "https://example.my.salesforce.com")
        .unwrap()
        .with_identity_url("https://login.salesforce.com/id/00Dxx/005xx");
    for error in [
        oauth::userinfo(c(), &session).await.map(drop),
        oauth::identity(c(), &session).await.map(drop),
    ] {
        if let Err(error) = error {
            show(shown, &error);
        }
    }
}

#[tokio::test]
async fn r17_no_flow_call_or_error_shows_a_secret() {
    let org = Org::new();
    let mut shown = Vec::new();
    for (status, body) in [
        (200, r#"{"access_token":"NEW-hush","refresh_token":"NEW-hush","instance_url":"https://example.my.salesforce.com","id":"x","id_token":"NEW-hush"}"#.to_owned()),
        (200, r#"{"access_token":"NEW hush","refresh_token":"NEW-hush","instance_url":"https://hush:hush@example.com"}"#.to_owned()),
        (200, r#"{"access_token":"NEW-hush","instance_url":{"hush":"hush"}}"#.to_owned()),
        (200, r#"{"device_code":"NEW-hush","user_code":"ABCD","verification_uri":"https://example.com"}"#.to_owned()),
        (200, r#"{"access_token":"NEW-hush","#.to_owned()),
        (200, "hush".to_owned()),
        (503, "<html>hush</html>".to_owned()),
        (401, "hush?".to_owned()),
        (302, String::new()),
    ] {
        let client = answering(status, &[("location", "https://example.com/?token=hush")], body);
        try_everything(&mut shown, client, &org).await;
    }
    try_everything(&mut shown, service_fn(repeat), &org).await;
    assert!(shown.len() > 200, "{}", shown.len());
    for shown in shown {
        assert!(!shown.contains(MARK), "{shown}");
        assert!(
            !shown.contains("PRIVATE KEY") && !shown.contains("eyJ"),
            "{shown}"
        );
    }
}

/// A server whose answers repeat the request.
async fn repeat(request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let sent = String::from_utf8_lossy(&body).into_owned();
    if sent.starts_with("<?xml") {
        let text = |tag: &str| {
            let (_, rest) = sent.split_once(&format!("<urn:{tag}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let fault = format!(
            "<Fault><faultcode>X</faultcode><faultstring>{}</faultstring></Fault>",
            text("password")
        );
        return Ok(Response::builder().status(500).body(Full::from(fault))?);
    }
    let values: Vec<_> = form_urlencoded::parse(&body)
        .map(|(_, value)| value)
        .collect();
    let authorization = head
        .headers
        .get(AUTHORIZATION)
        .map(|value| value.to_str().unwrap());
    let token = authorization.and_then(|value| value.split_once(' '));
    // The values are joined, as the layer cuts long texts.
    let answers = values
        .iter()
        .map(|value| &**value)
        .chain(token.map(|(_, token)| token));
    let description = answers.collect::<Vec<_>>().join(" ");
    let answer =
        serde_json::json!({ "error": "invalid_request", "error_description": description });
    Ok(Response::builder()
        .status(400)
        .body(Full::from(answer.to_string()))?)
}

#[tokio::test]
async fn r17_a_secret_in_another_form_redacts_the_description() {
    let secret = "p@ss/word hush'ed<1>";
    for repeated in [
        "p%40ss%2Fword%20hush%27ed%3C1%3E",
        "p%40ss%2fword%20hush%27ed%3c1%3e",
        "p@ss/word hush&apos;ed&lt;1&gt;",
        "P@SS/WORD HUSH'ED<1>",
        "p@ss/word hu",
        "cEBzcy93b3JkIGh1c2gnZWQ8MT4=",
        r"p@ss\/word \u0068ush",
    ] {
        let description = serde_json::to_string(&format!("bad: {repeated}")).unwrap();
        let body = format!(r#"{{"error":"invalid_grant","error_description":{description}}}"#);
        let flow =
            UsernamePassword::new(answering(400, &[], body), production_app(), "user", secret);
        let refused = flow.log_in().await.unwrap_err();
        assert!(
            refused.to_string().contains("[redacted]"),
            "{repeated}: {refused}"
        );
        assert!(!refused.to_string().contains("hu"), "{refused}");
        let body = format!(
            "<Fault><faultcode>X</faultcode><faultstring><![CDATA[bad: {repeated}]]></faultstring></Fault>"
        );
        let flow = SoapLogin::new(
            answering(500, &[], body),
            LoginUrl::production(),
            "user",
            secret,
        );
        let refused = flow.log_in().await.unwrap_err();
        assert!(!refused.to_string().contains("hu"), "{refused}");
    }
    let xml = "<saml:Assertion>hush-hush</saml:Assertion>";
    let body =
        serde_json::json!({ "error": "invalid_grant", "error_description": xml }).to_string();
    let flow = SamlBearer::new(answering(400, &[], body), LoginUrl::production(), xml);
    let refused = flow.log_in().await.unwrap_err();
    assert!(!refused.to_string().contains("hush"), "{refused}");
    let callback = "/?error=access_denied&error_description=STATE-hush+CODE-hush&state=STATE-hush&code=CODE-hush";
    let pending = PendingAuthorization::new("STATE-hush", VERIFIER).unwrap();
    let denied = Callback::parse(callback).unwrap();
    let denied = denied.code(&pending, &LoginUrl::production()).unwrap_err();
    assert!(!denied.to_string().contains("hush"), "{denied}");
}
