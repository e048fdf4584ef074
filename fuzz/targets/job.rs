//! Job files.

use ddl::config::Job;

/// Whatever comes in, an answer comes out: a job, or an error of usage; and what resolves does so again.
pub fn survives(text: &str) {
    match Job::parse(text, "job.toml", &[]) {
        Err(error) => assert_eq!(error.exit_code(), 2, "{error}"),
        Ok(job) => match job.resolved() {
            Err(error) => assert_eq!(error.exit_code(), 2, "{error}\n{text}"),
            Ok(once) => {
                let again = Job::parse(&once, "job.toml", &[]).and_then(|job| job.resolved());
                assert_eq!(again.as_deref(), Ok(once.as_str()), "{text}");
            }
        },
    }
}
