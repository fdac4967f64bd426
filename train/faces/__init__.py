"""Face recognition: what is trained with identities, and how pairs are verified."""
