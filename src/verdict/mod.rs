//! Decides whether a response rejects the session.
//!
//! [`SalesforceClassifier`] knows the responses of the APIs:
//!
//! | [`Api`] | response | verdict |
//! |---|---|---|
//! | any | 401 with any body, even an unreadable one | [`Expired`](Verdict::Expired) |
//! | any | 401 with a [text](SalesforceClassifier::incurable) that no refresh cures | [`Incurable`](Verdict::Incurable) |
//! | `Bulk` | 400 `InvalidSessionId`, in XML or JSON | `Expired` |
//! | `Soap` | 500 with the fault code `INVALID_SESSION_ID` | `Expired` |
//! | `Soap` | 500 with that code, and such a text or a token that [is a JWT](crate::Session::is_jwt) | `Incurable` |
//! | `Identity` | 403 `Bad_OAuth_Token` | `Expired` |
//! | `Grpc` | status `UNAUTHENTICATED` (16) in the headers | `Expired` |
//! | any | any other | [`Pass`](Verdict::Pass) |
//!
//! A byte order mark, another charset, gzip or deflate make no difference.
//!
//! The layer reads the body only of a 401, and of a 400, 403 or 500 that its API may use to reject a session. It reads at
//! most 64 KiB, for at most 5 s, and stops at the verdict. The caller still receives the whole body, byte for byte. Any other
//! response passes by its status.
//!
//! The layer does not read the body of a 200. So it does not see an error in a `CometD` message, or in gRPC trailers after a
//! message.
//!
//! # Another text
//!
//! Add the text of a 401 that another policy of the org causes:
//!
//! ```
//! use tower_salesforce_auth::{SalesforceAuthLayer, Session, verdict::SalesforceClassifier};
//!
//! let session = Session::new("00Dxx!AQEAQ", "https://MyDomainName.my.salesforce.com")?;
//! let classifier =
//!     SalesforceClassifier::new().incurable("blocked by the transaction security policy");
//! let layer = SalesforceAuthLayer::fixed(session).classifier(classifier);
//! # Ok::<_, tower_salesforce_auth::Error>(())
//! ```
//!
//! # Another classifier
//!
//! A gateway in front of the org may answer 440 when a session has timed out:
//!
//! ```
//! use http::{Response, StatusCode};
//! use tower_salesforce_auth::verdict::{
//!     Api, Classify, Extent, ResponseHead, SalesforceClassifier, Verdict,
//! };
//!
//! struct Gateway(SalesforceClassifier);
//!
//! impl Classify for Gateway {
//!     fn classify_head(&self, head: &ResponseHead<'_>) -> Option<Verdict> {
//!         match head.status().as_u16() {
//!             440 => Some(Verdict::Expired),
//!             _ => self.0.classify_head(head),
//!         }
//!     }
//!
//!     fn classify_body(
//!         &self,
//!         head: &ResponseHead<'_>,
//!         body: &[u8],
//!         extent: Extent,
//!     ) -> Option<Verdict> {
//!         self.0.classify_body(head, body, extent)
//!     }
//! }
//!
//! let gateway = Gateway(SalesforceClassifier::new());
//! let timed_out = Response::builder().status(440).body(())?;
//! let head = ResponseHead::new(Api::Rest, &timed_out);
//! assert_eq!(gateway.classify_head(&head), Some(Verdict::Expired));
//!
//! let expired = Response::builder().status(StatusCode::UNAUTHORIZED).body(())?;
//! let head = ResponseHead::new(Api::Rest, &expired);
//! assert_eq!(gateway.classify_head(&head), None, "the body decides");
//! assert_eq!(gateway.classify_body(&head, b"", Extent::Whole), Some(Verdict::Expired));
//! # Ok::<_, http::Error>(())
//! ```

mod api;
mod classifier;
mod classify;
mod salesforce;

pub use api::Api;
pub(crate) use classifier::Classifier;
pub use classify::{Classify, Extent, ResponseHead, Verdict};
pub use salesforce::SalesforceClassifier;
