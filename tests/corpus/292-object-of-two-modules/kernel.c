int say(int x);
int one(int x)
{
#ifdef NEW
	return say(x) + 17 * x;
#else
	return say(x) + 1;
#endif
}
