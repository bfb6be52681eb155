"""A page about runs that a person looks at: `report.html`, of the files in their workdirs."""
