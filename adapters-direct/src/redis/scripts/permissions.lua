-- Which of these commands the user may not run, where the server tells (Redis 7). Without one of them a
-- script would end in its middle.
-- ARGV: a key that the user works on, the commands. A command alone would make the server look for its key.
local missing = {}
for at = 2, #ARGV do
  if redis.acl_check_cmd and not redis.acl_check_cmd(ARGV[at], ARGV[1]) then
    missing[#missing + 1] = ARGV[at]
  end
end
return missing
