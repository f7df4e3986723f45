use anyhow::{Context as _, Result, ensure};
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::wait::LIMIT;

/// An HTTP client of the application, with kept connections as real ones have.
#[derive(Clone)]
pub struct Api {
    client: Client,
    base: String,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {self:?}"))
    }
}

impl Api {
    pub(crate) fn new(base: String) -> Result<Api> {
        // What hangs fails the test; how fast an answer comes is not a test's business.
        let client = Client::builder().timeout(LIMIT).build()?;
        Ok(Api { client, base })
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    pub fn request(&self, method: &str, path: &str) -> Result<RequestBuilder> {
        Ok(self.client.request(method.parse()?, self.url(path)))
    }

    /// Creates a task, which must succeed.
    pub async fn create(&self, task: &Value) -> Result<Value> {
        let created = answer(self.post("/api/tasks").json(task)).await?;
        ensure!(created.status == StatusCode::CREATED, "{created:?}");
        created.json()
    }

    /// One task, which must be there.
    pub async fn read(&self, id: &str) -> Result<Value> {
        let read = answer(self.get(&format!("/api/tasks/{id}"))).await?;
        ensure!(read.status == StatusCode::OK, "{read:?}");
        read.json()
    }

    /// A merge patch.
    pub async fn patch(&self, id: &str, patch: &Value) -> Result<Answer> {
        let request = self.request("PATCH", &format!("/api/tasks/{id}"))?;
        let request = request.header("content-type", "application/merge-patch+json");
        answer(request.body(serde_json::to_vec(patch)?)).await
    }

    /// The list, which must succeed; `query` with its question mark, or empty.
    pub async fn list(&self, query: &str) -> Result<Vec<Value>> {
        let list = answer(self.get(&format!("/api/tasks{query}"))).await?;
        ensure!(list.status == StatusCode::OK, "{list:?}");
        match list.json()? {
            Value::Array(tasks) => Ok(tasks),
            other => anyhow::bail!("not a list: {other}"),
        }
    }
}

/// Sends a request and reads the response. Whatever it says it must have a Content-Length, unless its
/// status says that there is no content.
pub async fn answer(request: RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await?;
    let answer = Answer { status, headers, body };
    let has_length = answer.headers.contains_key(CONTENT_LENGTH);
    let has_content = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    ensure!(has_length == has_content, "Content-Length: {answer:?}");
    Ok(answer)
}
