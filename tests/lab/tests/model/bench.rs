//! One simulated BMC and short ways to talk to it in virtual time.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response};
use rackhand_lab::{CallError, InProcess, Model, ServerSpec, SiteConfig};
use serde_json::{Value, json};
use tokio::time::sleep;

pub const PASSWORD: &str = "correct horse";
pub const NAME: &str = "bmc-01";

pub struct Bench {
    pub lab: InProcess,
    pub auth: String,
    pub model: Model,
}

pub fn bench(spec: ServerSpec) -> Bench {
    let model = spec.model;
    let lab = InProcess::new(&SiteConfig::new(vec![spec], PASSWORD));
    Bench { lab, auth: basic(PASSWORD), model }
}

pub fn r750() -> Bench {
    bench(ServerSpec::new(NAME, Model::R750))
}

pub fn basic(password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("root:{password}")))
}

pub fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or(Value::Null)
}

impl Bench {
    pub async fn send(&self, method: Method, path: &str, body: Value) -> Result<Response<Bytes>, CallError> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", &self.auth)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        self.lab.call(0, request).await
    }

    pub async fn get(&self, path: &str) -> Value {
        let response = self.send(Method::GET, path, Value::Null).await.unwrap();
        assert_eq!(response.status(), 200, "{path}: {:?}", response.body());
        json_of(&response)
    }

    pub async fn post(&self, path: &str, body: Value) -> Response<Bytes> {
        self.send(Method::POST, path, body).await.unwrap()
    }

    pub fn package(&self, prefix: &str) -> String {
        let product = self.model.product();
        let found = self.lab.packages().into_iter().find(|package| {
            package.file_name.starts_with(prefix) && package.header.models.iter().any(|at| at == product)
        });
        found.unwrap().url
    }

    /// Starts an update and returns the job's id.
    pub async fn update(&self, prefix: &str, apply: Option<&str>) -> String {
        let mut body = json!({ "ImageURI": self.package(prefix), "TransferProtocol": "HTTP" });
        if let Some(apply) = apply {
            body["@Redfish.OperationApplyTime"] = json!(apply);
        }
        let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
        let response = self.post(path, body).await;
        assert_eq!(response.status(), 202, "{:?}", response.body());
        let location = response.headers()["location"].to_str().unwrap();
        location.rsplit('/').next().unwrap().to_owned()
    }

    pub async fn reset(&self, kind: &str) -> Response<Bytes> {
        let path = "/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset";
        self.post(path, json!({ "ResetType": kind })).await
    }

    pub fn state(&self, job: &str) -> (String, String) {
        let status = self.lab.status(NAME).unwrap();
        let found = status.jobs.into_iter().find(|(id, ..)| id == job).unwrap();
        (found.2, found.3)
    }

    pub fn bios(&self) -> String {
        self.lab.status(NAME).unwrap().bios_version
    }

    pub async fn wait(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
        self.lab.skip(Duration::ZERO);
    }
}

pub fn message_id(response: &Response<Bytes>) -> String {
    let info = &json_of(response)["error"]["@Message.ExtendedInfo"];
    let first = if info.is_array() { &info[0] } else { info };
    first["MessageId"].as_str().unwrap_or_default().to_owned()
}

pub async fn multipart(bench: &Bench, file: &[u8]) -> String {
    let mut body = Vec::new();
    body.extend_from_slice(
        b"--XX\r\nContent-Disposition: form-data; name=\"UpdateParameters\"\r\nContent-Type: application/json\r\n\r\n\
          {\"@Redfish.OperationApplyTime\": \"OnReset\"}\r\n--XX\r\nContent-Disposition: form-data; \
          name=\"UpdateFile\"; filename=\"b.EXE\"\r\nContent-Type: application/octet-stream\r\n\r\n",
    );
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    let request = Request::post("/redfish/v1/UpdateService/MultipartUpload")
        .header("authorization", &bench.auth)
        .header("content-type", "multipart/form-data; boundary=XX")
        .body(Bytes::from(body))
        .unwrap();
    let response = bench.lab.call(0, request).await.unwrap();
    assert_eq!(response.status(), 202);
    response.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned()
}
