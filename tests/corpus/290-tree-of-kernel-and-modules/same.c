int say(int x);
int same(int x)
{
	return say(x) - 9;
}
