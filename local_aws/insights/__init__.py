"""CloudWatch Logs Insights: queries in its own language, over the embedded log groups.

`language` reads a query, `engine` runs it over records, `values` and `functions` say what values are and what
can be done with them, `service` answers StartQuery and GetQueryResults.
docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""
