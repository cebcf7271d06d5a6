//! The HTML pages. maud escapes every value, so that data from Salesforce is safe.

use maud::{DOCTYPE, Markup, html};
use tower_salesforce_auth::oauth::UserInfo;

use super::{
    failure::Failure,
    salesforce::{Contact, MOST_CONTACTS},
};

pub(crate) fn home() -> Markup {
    page(
        "Log in",
        &Markup::default(),
        &card(&html! {
            h1 { "Your Salesforce contacts" }
            p { "Log in to see the contacts that you may see in Salesforce." }
            (log_in("Log in with Salesforce"))
            p.small {
                "Your password stays with Salesforce. This application gets a session, which it ends when you log out."
            }
        }),
    )
}

pub(crate) fn contacts(user: &UserInfo, contacts: &[Contact]) -> Markup {
    let username = user.preferred_username.as_deref().unwrap_or_default();
    let name = user.name.as_deref().unwrap_or(username);
    let account = html! {
        div.account {
            span.who {
                span.name { (name) }
                span.username { (username) }
            }
            (log_out())
        }
    };
    let list = html! {
        div.heading {
            h1 { "Contacts" }
            p.small { "Org " span.id { (user.organization_id) } }
        }
        @if contacts.is_empty() {
            p.card { "There are no contacts in this org, or none that you may see." }
        } @else {
            div.card.flush {
                table {
                    caption { (count(contacts.len())) }
                    thead {
                        tr { th scope="col" { "Name" } th scope="col" { "Email" } }
                    }
                    tbody {
                        @for contact in contacts {
                            tr {
                                th scope="row" { (full_name(contact)) }
                                td { (email(contact)) }
                            }
                        }
                    }
                }
            }
        }
    };
    page("Contacts", &account, &list)
}

pub(crate) fn logged_out() -> Markup {
    page(
        "Logged out",
        &Markup::default(),
        &card(&html! {
            h1 { "You are logged out" }
            p { "This application has ended your session, and can no longer act in your name." }
            p {
                "You may still be logged in at Salesforce itself. On a computer that is not yours, log out there as well."
            }
            (log_in("Log in again"))
        }),
    )
}

/// The page of a failure: what happened, and what to do about it.
pub(crate) fn failure(failure: Failure) -> Markup {
    let (title, happened, to_do) = match failure {
        Failure::Denied => (
            "You did not allow it",
            "Salesforce asked whether this application may see your contacts, and the answer was no. Nothing was read.",
            "If that was a mistake, log in once more and choose Allow.",
        ),
        Failure::Forged => (
            "This login did not begin here",
            "This browser came back from a login that it has not begun, not as its latest, or more than ten minutes ago. A \
             link may have tried to log you in as another user. It was not followed.",
            "If you were logging in, begin again, and finish in the same browser.",
        ),
        Failure::Reused => (
            "This login was used already",
            "Each login works once, and for a few minutes. You may have gone back to it, or loaded it again.",
            "Go to your contacts if you are logged in, or else log in once more.",
        ),
        Failure::LoginRefused => (
            "Salesforce did not let you in",
            "Salesforce refused the login, for a reason that trying again will not change.",
            "Ask your Salesforce administrator whether you may use this application.",
        ),
        Failure::SessionOver => (
            "Your session is over",
            "You were logged out, or the access that you had given was withdrawn or has run out.",
            "Log in again to go on.",
        ),
        Failure::NotRefreshed => (
            "Your session is not refreshed",
            "Salesforce refused to refresh it, for a reason that trying again will not change: this application may be blocked, \
             or set up wrongly.",
            "Tell its administrator. After the fix you are logged in as before.",
        ),
        Failure::NoData(_) => (
            "Salesforce did not show your contacts",
            "You are logged in, but Salesforce answered with something else.",
            "Ask your Salesforce administrator whether you may use the API, and see contacts.",
        ),
        Failure::Unreachable => (
            "Salesforce cannot be reached",
            "It did not answer, or not in time. Your session is not lost.",
            "Try again in a minute.",
        ),
        Failure::NotRevoked => (
            "You are logged out here only",
            "This application has forgotten your session, but could not tell Salesforce to end it.",
            "To be sure, open your personal settings in Salesforce, and revoke this application there.",
        ),
        Failure::NotLoggedOut => (
            "You are not logged out",
            "This application could not delete your session, and may go on with it.",
            "Log out once more in a minute.",
        ),
        Failure::Crowded => (
            "There are too many people here",
            "This application has no room for another session at the moment.",
            "Try again in a minute.",
        ),
        Failure::CrossSite => (
            "This did not come from here",
            "Another site had your browser ask for this. It was not done.",
            "If it was you who wanted it, do it from here.",
        ),
        Failure::NotFound => (
            "There is nothing here",
            "No page has this address.",
            "Begin at the first page.",
        ),
        Failure::Internal => (
            "Something went wrong",
            "It is this application's fault, and is in its log.",
            "Try again in a minute.",
        ),
    };
    page(
        title,
        &Markup::default(),
        &card(&html! {
            p.status { "Error " (failure.status().as_u16()) }
            h1 { (title) }
            p { (happened) }
            @if let Failure::NoData(status) = failure {
                p { "The answer was " code { (status) } "." }
            }
            p { (to_do) }
            (way_on(failure))
        }),
    )
}

fn way_on(failure: Failure) -> Markup {
    match failure {
        Failure::Denied | Failure::Forged | Failure::SessionOver => {
            log_in("Log in with Salesforce")
        }
        Failure::Reused => html! {
            div.actions { a.button href="/contacts" { "Contacts" } }
        },
        Failure::Unreachable | Failure::NoData(_) | Failure::NotRefreshed => html! {
            div.actions {
                a.button href="/contacts" { "Try again" }
                (log_out())
            }
        },
        Failure::NotLoggedOut => html! {
            div.actions { (log_out()) }
        },
        _ => html! {
            div.actions { a.button href="/" { "First page" } }
        },
    }
}

/// A link, and no form: a visitor can only log in as their own user, after Salesforce has asked them.
fn log_in(label: &str) -> Markup {
    html! {
        div.actions { a.button href="/login" { (label) } }
    }
}

/// A form, so that no link and no prefetch of a browser logs a user out.
fn log_out() -> Markup {
    html! {
        form method="post" action="/logout" {
            button.quiet { "Log out" }
        }
    }
}

fn card(content: &Markup) -> Markup {
    html! { div.card.narrow { (content) } }
}

fn page(title: &str, account: &Markup, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Address Book" }
                link rel="icon" href="/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/style.css";
            }
            body {
                header {
                    div.bar {
                        a.brand href="/" {
                            img src="/icon.svg" alt="" width="28" height="28";
                            "Address Book"
                        }
                        (account)
                    }
                }
                main { (content) }
            }
        }
    }
}

fn full_name(contact: &Contact) -> String {
    let names = [&contact.first_name, &contact.last_name];
    let names: Vec<_> = names.into_iter().flatten().map(String::as_str).collect();
    names.join(" ")
}

/// An email address, which may break after the `@`.
fn email(contact: &Contact) -> Markup {
    let Some(email) = &contact.email else {
        return html! { "–" };
    };
    match email.split_once('@') {
        Some((name, host)) => html! { (name) "@" wbr; (host) },
        None => html! { (email) },
    }
}

fn count(contacts: usize) -> String {
    match contacts {
        1 => "1 contact".to_owned(),
        MOST_CONTACTS => format!("The first {MOST_CONTACTS} contacts"),
        contacts => format!("{contacts} contacts"),
    }
}
