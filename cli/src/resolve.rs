//! From what people type to ids: a name or an id works everywhere.

use rackhand_schema::{
    id::{JobId, ServerId, SiteId},
    server::ServerSummary,
    site::Site,
};

use crate::{
    client::Client,
    error::{Failure, Result},
};

/// The site of that name or id; the only one if none is named.
pub async fn site(client: &Client, named: Option<&str>) -> Result<Site> {
    let sites: Vec<Site> = client.all(&["v1", "sites"], &[], None).await?;
    let Some(named) = named else {
        let names: Vec<&str> = sites.iter().map(|site| site.name.as_str()).collect();
        return match names.len() {
            0 => Err(Failure::NotFound { what: "site", name: "any".to_owned() }),
            1 => sites.into_iter().next().ok_or(Failure::NotFound { what: "site", name: "any".to_owned() }),
            _ => Err(Failure::Usage(format!("which site? give --site: {}", names.join(", ")))),
        };
    };
    let id: Option<SiteId> = named.parse().ok();
    sites
        .into_iter()
        .find(|site| site.name == named || Some(site.id) == id)
        .ok_or_else(|| Failure::NotFound { what: "site", name: named.to_owned() })
}

/// The id of the site, if one is named.
pub async fn site_id(client: &Client, named: Option<&str>) -> Result<Option<SiteId>> {
    match named {
        None => Ok(None),
        Some(named) => match named.parse() {
            Ok(id) => Ok(Some(id)),
            Err(_) => Ok(Some(site(client, Some(named)).await?.id)),
        },
    }
}

/// The server of that id, or of exactly that name or service tag.
pub async fn server(client: &Client, named: &str, site: Option<SiteId>) -> Result<ServerId> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    let mut query = vec![("q", named.to_owned())];
    query.extend(site.map(|site| ("site", site.to_string())));
    let found: Vec<ServerSummary> = client.all(&["v1", "servers"], &query, None).await?;
    pick(&found, named)
}

/// Exactly one of `found` must have this name or service tag.
pub fn pick(found: &[ServerSummary], named: &str) -> Result<ServerId> {
    let exact: Vec<&ServerSummary> = found
        .iter()
        .filter(|server| server.name == named || server.service_tag.as_deref() == Some(named))
        .collect();
    match exact.as_slice() {
        [] => Err(Failure::NotFound { what: "server", name: named.to_owned() }),
        [one] => Ok(one.id),
        several => {
            let sites: Vec<&str> = several.iter().map(|server| server.site.as_str()).collect();
            Err(Failure::Usage(format!(
                "`{named}` means several servers (sites {}); give --site or the id",
                sites.join(", ")
            )))
        }
    }
}

pub fn job(text: &str) -> Result<JobId> {
    text.parse().map_err(|error: rackhand_schema::id::InvalidId| Failure::Usage(error.to_string()))
}
