"""Training of GenzIQA: a plan, cached latents, one loop that resumes where it stopped."""
