//! Why something failed, as people are told.

use std::error::Error;

/// The innermost cause, which says most: "Connection refused" where the error itself says "error sending request".
pub fn last<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn a_closed_port_is_told() {
        let tls = crate::cloud::http::tls().unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
        let error = client.get("http://127.0.0.1:1/secret").send().await.unwrap_err();
        let said = super::last(&error.without_url()).to_string();
        assert!(said.starts_with("Connection refused"), "{said}");
    }
}
