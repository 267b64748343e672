//! Requests that the hub refuses: the reason, and what to do about it.

use super::id::Id;
use ureq::http::{HeaderMap, StatusCode};

/// A request that the hub has understood and refused. Asking again would give the same answer.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.words())]
pub struct Refusal {
    /// The hub's address.
    pub hub: String,
    /// The repository that was asked for.
    pub id: Id,
    pub status: u16,
    /// `X-Error-Code`: the hub's code for the reason.
    pub code: Option<String>,
    /// `X-Error-Message`: the hub's message.
    pub message: Option<String>,
    /// Whether the request had an access token.
    pub token: bool,
}

impl Refusal {
    /// Reads a refusal from status and headers of an answer.
    pub fn new(hub: &str, id: &Id, token: bool, status: StatusCode, headers: &HeaderMap) -> Refusal {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let (code, message) = (text("x-error-code"), text("x-error-message"));
        Refusal { hub: hub.to_owned(), id: id.clone(), status: status.as_u16(), code, message, token }
    }

    fn words(&self) -> String {
        let Refusal { hub, id, status, token, .. } = self;
        let message = self.message.as_deref().unwrap_or_default();
        let terms = format!(
            "accept its terms on {hub}/{id} with your account, then set HF_TOKEN to a token from {hub}/settings/tokens that may read it"
        );
        let no_folder = format!("there is no folder `{id}` here, and {hub} answers {status}");
        let spelling = format!("Check the spelling of --model: a folder's path, or owner/name on {hub}");
        match (*status, self.code.as_deref()) {
            _ if message.contains("is disabled") => {
                format!("{hub} answers {status}: it has disabled {id} ({message}). Choose another model")
            }
            (401, _) if message.starts_with("Invalid credentials") => format!(
                "{hub} answers 401: the access token (HF_TOKEN, or the file of a login) is not valid, or has expired. Log in \
                 again, or unset HF_TOKEN"
            ),
            (_, Some("GatedRepo")) | (403, None) => {
                let why = match token {
                    false => "there is no access token",
                    true => {
                        "the access token (HF_TOKEN) does not open it: its account has not accepted the terms, or the token may not read gated models"
                    }
                };
                format!("{hub} answers {status}: {id} is gated, and {why}. To get in, {terms}")
            }
            (_, Some("RepoNotFound")) | (401, _) => {
                let why = match token {
                    false => "no such model, or it is private or gated and there is no access token",
                    true => {
                        "no such model, or it is private or gated and the access token (HF_TOKEN) does not open it or is no longer valid"
                    }
                };
                format!("{no_folder}: {why}. {spelling}. For a gated model, {terms}")
            }
            (_, Some("RevisionNotFound")) => {
                format!(
                    "{hub} answers {status}: {id} has no such branch, tag or commit. Check the spelling of --revision"
                )
            }
            (_, Some("EntryNotFound")) => {
                format!("{hub} answers {status}: {id} has no such file at this revision. Choose another --revision")
            }
            (404, _) => format!("{no_folder}: no such repository, revision or file. {spelling}, and of --revision"),
            _ => format!("{hub} answers {status}, which is no answer to a download. Check HF_ENDPOINT and the proxy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_fits_the_reason() {
        let says = |status, code: &str, message: &str, token| {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let (hub, id) = ("https://hub".into(), Id::new("a/b").unwrap());
            Refusal { hub, id, status, code: text(code), message: text(message), token }.to_string()
        };
        let gated = says(401, "GatedRepo", "", false);
        assert!(gated.contains("is gated") && gated.contains("no access token") && gated.contains("https://hub/a/b"));
        assert!(says(403, "GatedRepo", "", true).contains("has not accepted the terms"));
        for code in ["RepoNotFound", ""] {
            assert!(says(401, code, "", false).contains("no folder `a/b` here"));
        }
        assert!(says(404, "RepoNotFound", "", false).contains("no folder `a/b` here"));
        assert!(says(404, "RevisionNotFound", "", false).contains("--revision"));
        assert!(says(404, "EntryNotFound", "", false).contains("no such file"));
        assert!(says(401, "", "Invalid credentials in Authorization header", true).contains("expired"));
        assert!(says(403, "", "Access to this resource is disabled.", false).contains("Choose another model"));
        for (status, code) in [(401, "GatedRepo"), (403, ""), (404, "RepoNotFound"), (401, "RepoNotFound")] {
            assert!(!says(status, code, "", false).contains("ry again"));
        }
    }
}
