"""Pages of HTML that need no other file and no network.

`page` puts a page together from its template, its scripts and its texts, with the policy that all pages have.
"""
