"""Who is who and who may do what: keys, certificates, invitations, and what a cluster has signed."""
