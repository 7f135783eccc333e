"""Who may speak for a device: certificates, revocations, the broker's access, enrolment."""
