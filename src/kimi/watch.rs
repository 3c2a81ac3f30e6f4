//! Changes of the configuration, as they happen.
pub struct Watch;
impl Watch { /// Waits for the next change; cancel safe.
 pub async fn changed(&mut self); }
