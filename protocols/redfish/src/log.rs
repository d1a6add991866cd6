//! The Lifecycle log: the BMC's own memory of what was done to it.
//!
//! Records are numbered and come newest first, in pages. Their times come from a clock that carries no zone and may
//! be years off, so "since" is a number here, never a time.

use serde_json::Value;

use crate::{
    client::Client,
    discovery::{is_document, next_page},
    document::{self, Document, at, link, link_at, message, str_at, text_at},
    error::Error,
    model::{LogRecord, LogRecords},
};

/// Records that one call reads at most.
const MAX_RECORDS: usize = 2000;
/// Pages that one call reads at most.
const MAX_PAGES: usize = 40;

impl Client {
    /// The records with a greater number than `since`, newest first; without `since`, one page. At most 2000 are
    /// read: [`LogRecords::complete`] says whether the log was read back to `since`.
    ///
    /// # Errors
    /// There is no Lifecycle log, or it cannot be read.
    pub async fn lifecycle_log(&self, since: Option<u64>) -> Result<LogRecords, Error> {
        let mut path = self.lifecycle_entries().await?;
        let mut found = LogRecords { records: Vec::new(), complete: false };
        let mut visited = std::collections::BTreeSet::new();
        for _ in 0..MAX_PAGES {
            visited.insert(path.clone());
            let page = self.get(&path).await?;
            let reached = self.take_records(&page, since, &mut found.records).await?;
            let next = next_page(&page.value).and_then(|next| self.endpoint.path_of(next)).map(str::to_owned);
            if reached || next.is_none() {
                found.complete = true;
                break;
            }
            let Some(next) = next.filter(|next| !visited.contains(next)) else { break };
            if since.is_none() || found.records.len() >= MAX_RECORDS {
                break;
            }
            path = next;
        }
        found.records.sort_by_key(|record| std::cmp::Reverse(record.number));
        Ok(found)
    }

    /// The newest record; `None` when the log is empty.
    ///
    /// # Errors
    /// See [`Client::lifecycle_log`].
    pub async fn last_lifecycle_record(&self) -> Result<Option<LogRecord>, Error> {
        Ok(self.lifecycle_log(None).await?.records.into_iter().next())
    }

    /// Adds the page's records that are newer than `since`. True: the rest of the log is older than those.
    async fn take_records(
        &self,
        page: &Document,
        since: Option<u64>,
        records: &mut Vec<LogRecord>,
    ) -> Result<bool, Error> {
        let (mut first, mut last) = (None, None);
        for member in document::field(&page.value, "Members").into_iter().flat_map(document::items) {
            let read = match link(member) {
                Some(path) if !is_document(member) => record(&self.get(path).await?.value),
                _ => record(member),
            };
            let Some(record) = read else { continue };
            first = first.or(record.number);
            last = record.number.or(last);
            let old = since.is_some_and(|since| record.number.is_some_and(|number| number <= since));
            if !old && records.len() < MAX_RECORDS {
                records.push(record);
            }
        }
        // A log that lists its oldest records first must be read to its end.
        Ok(first >= last && since.is_some_and(|since| last.is_some_and(|last| last <= since)))
    }

    async fn lifecycle_entries(&self) -> Result<String, Error> {
        let entries = self.log_entries().await?;
        entries.ok_or_else(|| self.not_declared("/redfish/v1/", "a Lifecycle log"))
    }

    /// The records of the Lifecycle log, found among the manager's log services; `None` when there is none.
    pub(crate) async fn log_entries(&self) -> Result<Option<String>, Error> {
        if let Some(path) = self.with_links(|links| links.log_entries.clone()) {
            return Ok(Some(path));
        }
        let manager = self.manager_links().await?;
        let Some(services) = &manager.log_services else { return Ok(None) };
        let services = self.collection(services, false).await?;
        let is_lifecycle = |path: &&str| {
            let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            last.to_ascii_lowercase().starts_with("lclog")
        };
        let Some(path) = services.members.iter().filter_map(link).find(is_lifecycle) else {
            // A gap in the list may be the log.
            return services.unreadable.into_iter().next().map_or(Ok(None), |gap| Err(gap.error));
        };
        let service = self.get(path).await?;
        let Some(entries) = link_at(&service.value, &["Entries"]) else { return Ok(None) };
        self.with_links(|links| links.log_entries = Some(entries.to_owned()));
        Ok(Some(entries.to_owned()))
    }
}

fn record(raw: &Value) -> Option<LogRecord> {
    let id = text_at(raw, "Id")?;
    let mut message = message(raw).unwrap_or_default();
    message.severity = message.severity.or_else(|| str_at(raw, "Severity").map(str::to_owned));
    Some(LogRecord {
        number: id.parse().ok(),
        created: text_at(raw, "Created"),
        category: at(raw, &["Oem", "Dell", "Category"]).and_then(document::text),
        message,
        id,
        raw: raw.clone(),
    })
}
